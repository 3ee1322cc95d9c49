"""The demo: drawn street scenes, a small network, a report."""
