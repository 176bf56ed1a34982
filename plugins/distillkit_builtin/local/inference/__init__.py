"""A model that samples and scores: by its fast backbone where that is proved, else by transformers' own forward.

It imports `fast`, `fixed`, `sampling` and below: docs/developers/local-backend.md has the order of the folders.
"""
