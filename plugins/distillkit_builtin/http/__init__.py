"""Scorer `http` and sampler `vllm`: models behind servers that speak what vLLM and SGLang speak."""
