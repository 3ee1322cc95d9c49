"""Data sets: declarations, reading, batches."""
