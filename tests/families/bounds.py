"""How far from the reference a logprob may be: what rounding comes to, and no more."""

EXACT = 3e-5
"""Nats: samples.jsonl has five decimals, and float32 adds up in another order."""
TIMES_ROUNDING, AT_MOST = 4, 1e-3
"""Where float32 itself rounds more than that, so many times what the reference is off from itself in float64."""


def bound(rounding: float) -> float:
    """Nats that a logprob may be off, where the reference in float32 is `rounding` off from float64."""
    return max(EXACT, min(AT_MOST, TIMES_ROUNDING * rounding))
