"""How the host follows the device while completions are sampled."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How the host follows the device."""

    steps: int
    """Tokens of a round: the host reads which completions have ended once a round."""
    ahead: int
    """Rounds that the device has in hand while the host reads an earlier one."""


ON_CUDA, ELSEWHERE = Pace(4, 1), Pace(1, 0)
