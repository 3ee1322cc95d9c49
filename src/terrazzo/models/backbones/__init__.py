"""One architecture a file; each registers itself."""
