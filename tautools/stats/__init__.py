"""Statistics as arithmetic: arrays and frames in, numbers out; touches nothing else."""
