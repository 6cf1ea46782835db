"""A process and its surroundings: signals, memory, SLURM, the other processes of its group, its terminal."""
