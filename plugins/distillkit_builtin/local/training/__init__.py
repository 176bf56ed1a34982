"""One optimizer step on a batch: what is trained, the losses of its micro-batches, gradients, checkpoints.

It imports `inference`, `packing` and below: docs/developers/local-backend.md has the order of the folders.
"""
