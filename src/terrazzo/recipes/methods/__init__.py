"""One function a method, a few methods a file."""
