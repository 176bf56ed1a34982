"""Decoding by transformers' own forward in steps of one fixed shape, which a CUDA graph can replay."""
