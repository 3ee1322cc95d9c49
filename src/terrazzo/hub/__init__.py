"""Published weights: their names, the local cache and downloads."""
