"""Sampling by transformers' own forward, and what all sampling has in common: known ids, tables, the student's copy.

It imports `batches`, `fixed` and below; `fast` imports it: docs/developers/local-backend.md has the order.
"""
