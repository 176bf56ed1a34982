"""Whether a run worked: what its evaluations found before and after, compared row by row, and sentences about it."""
