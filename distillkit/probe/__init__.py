"""A probe that measures: a few rows are sampled and scored for real, and what came back is compared with itself."""
