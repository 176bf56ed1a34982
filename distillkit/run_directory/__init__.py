"""What a run leaves and how it goes on: files, checkpoints, identity."""
