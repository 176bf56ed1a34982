"""From a raw row's columns to the fields that prompts are made of."""
