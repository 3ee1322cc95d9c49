"""One idea a file; each registers itself."""
