"""A sweep on a cluster: its members as the jobs of a SLURM array, which submitit submits."""
