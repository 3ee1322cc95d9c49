"""Label formats other than class indices: colours, polygons, run lengths."""
