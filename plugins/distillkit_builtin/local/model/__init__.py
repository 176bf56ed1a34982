"""A causal language model of transformers in memory: its weights read, what it computes of tokens, how large it is.

It imports `model_files` and `lora`: docs/developers/local-backend.md has the order of the folders.
"""
