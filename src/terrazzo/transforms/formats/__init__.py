"""Labels in other forms than class indices: colours, polygons, run lengths."""
