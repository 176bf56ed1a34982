"""Which sequences are computed together, and whether each is then what it is alone.

It imports `model` and what that does: docs/developers/local-backend.md has the order of the folders.
"""
