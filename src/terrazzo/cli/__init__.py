"""The `terrazzo` program: one file a command."""
