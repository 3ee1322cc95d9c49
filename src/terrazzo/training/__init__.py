"""Training runs: setup, the loop, and what happens at intervals."""
