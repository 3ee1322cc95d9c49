"""Tools for checkpoint files: inspect, publish, average, convert."""
