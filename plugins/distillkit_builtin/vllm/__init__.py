"""Rollouts from a vLLM server for a student that is trained elsewhere."""
