"""Inference of models made of known parts, at the speed of the hardware; others take transformers' own forward."""
