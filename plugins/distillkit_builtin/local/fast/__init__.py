"""Inference of models built like Llama, at the speed of the hardware; others take transformers' own forward."""
