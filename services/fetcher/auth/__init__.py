"""Who we are to a registry: challenges answered, secrets found, tokens kept, and none of it told to anybody else."""
