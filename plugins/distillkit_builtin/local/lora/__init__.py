"""LoRA: which layers it is put on, what they compute, and adapters as PEFT keeps them.

It imports `model_files` alone: docs/developers/local-backend.md has the order of the folders.
"""
