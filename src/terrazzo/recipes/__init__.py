"""The recipe book: configs composed from parts, by name."""

from terrazzo.recipes.book import families, family, recipe

__all__ = ["families", "family", "recipe"]
