"""Sequences end to end in one row, by compiled layers: for which models, how, and the proof that no number changes.

It imports `batches`, a part of `fast`, and below: docs/developers/local-backend.md has the order of the folders.
"""
