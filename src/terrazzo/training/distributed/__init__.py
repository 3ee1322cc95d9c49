"""Several processes: launching, wrapping the model, SLURM."""
