"""The upgrade of the 0.x vocabulary to that of 1.x."""
