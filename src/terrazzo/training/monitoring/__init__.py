"""Reports of a run: logs, progress, trackers, pictures, profiles."""
