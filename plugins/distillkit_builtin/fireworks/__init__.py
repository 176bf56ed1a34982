"""Student and scorer `fireworks`: the managed Fireworks Training API, through its own SDK (extra `fireworks`)."""
