"""The recipe book: configs composed from parts, by name."""

from terrazzo.recipes.compose import families, family, info, names, recipe
from terrazzo.recipes.published import RecipeInfo

__all__ = ["RecipeInfo", "families", "family", "info", "names", "recipe"]
