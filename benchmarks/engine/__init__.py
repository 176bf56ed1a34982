"""What the engine itself costs, where plugins answer at once."""
