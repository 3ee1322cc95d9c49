"""What a run reports: logs, progress, trackers, pictures, profiles."""
