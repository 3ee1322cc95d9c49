"""The recipe book: configs composed from parts, by name."""

from terrazzo.recipes.compose import families, family, info, names, recipe
from terrazzo.recipes.published import RecipeInfo, RecipeRecord

__all__ = ["RecipeInfo", "RecipeRecord", "families", "family", "info", "names", "recipe"]
