"""Trained weights as others load them, read back before they are called written.

It imports `training` and below: docs/developers/local-backend.md has the order of the folders.
"""
