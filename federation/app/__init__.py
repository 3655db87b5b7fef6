"""Where shells meet: each process is put together here, from its settings, and nowhere else."""
