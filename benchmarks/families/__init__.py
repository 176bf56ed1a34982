"""Families at small real shapes: their exactness against the CPU, their speed beside transformers' generate."""
