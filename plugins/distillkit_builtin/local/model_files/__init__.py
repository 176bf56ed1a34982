"""What a model is by its files, of which none is loaded: config, class, formats, and whether weights are all there.

It imports none of the other folders of the local backend: docs/developers/local-backend.md has their order.
"""
