"""Servers on loopback that speak as vLLM, SGLang and Fireworks do: for tests, plugin authors and trying out."""
