"""Scorer `http`, and how samplers `vllm` and `sglang` ask: models behind servers that speak what those two speak."""
