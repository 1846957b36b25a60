"""A server as a job of Slurm: its script, its submission, its address, its state, its successor."""
