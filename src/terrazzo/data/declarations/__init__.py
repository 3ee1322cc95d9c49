"""Every data set as a declaration: classes, colours, suffixes and folder layout."""
