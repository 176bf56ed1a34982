"""A whole step of on-policy distillation, and its parts, beside what a user would take instead."""
