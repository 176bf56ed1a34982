"""A service that speaks the Tinker protocol: sessions, LoRA training, snapshots, sampling, scoring, checkpoints."""
