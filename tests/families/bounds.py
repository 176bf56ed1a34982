"""How far from the reference a logprob may be, and of which families more than that is rounding."""

from dataclasses import dataclass

EXACT = 3e-5
"""Nats: samples.jsonl has five decimals, and float32 of other orders of adding up the rest."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Another bound, and the reason."""

    nats: float
    why: str


BOUNDS: dict[str, Bound] = {}
