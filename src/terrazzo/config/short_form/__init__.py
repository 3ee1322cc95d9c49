"""The short form for people with their own images, expanded into a whole config."""
