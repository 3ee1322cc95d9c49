"""Class maps as pre-annotations of labelling tools."""
