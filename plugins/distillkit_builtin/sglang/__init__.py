"""Rollouts from an SGLang server for a student that is trained elsewhere."""
