"""A Fireworks Training API on this machine, for tests: real HTTP, and real tiny models that truly learn."""
