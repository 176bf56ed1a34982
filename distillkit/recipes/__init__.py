"""Recipes by the APIs that their users know; each module only forwards to the backend that has it."""
