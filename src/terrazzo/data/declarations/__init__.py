"""Declarations of data sets: classes, colours, suffixes and folder layout."""
