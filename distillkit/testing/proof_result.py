"""What `prove_loss` says of a loss."""

from dataclasses import dataclass
from typing import Literal

from distillkit.frozen import Value

ProofResult = Literal["passed", "failed", "not claimed"]
"""Of one check; `not claimed`: the loss promises nothing of the kind."""

EXPECTED = "expected gradient"
"""The check of what the loss minimises."""


@dataclass(frozen=True, slots=True)
class ProofCheck(Value):
    """One thing that was looked at."""

    name: str
    """The same for every loss, such as `expected gradient`."""
    result: ProofResult
    """What came of it."""
    sentence: str
    """Why, with the numbers."""


@dataclass(frozen=True, slots=True)
class Proof(Value):
    """What `prove_loss` found."""

    loss: str
    """The loss's name."""
    cases: tuple[str, ...]
    """With which sizes and how many teachers it was looked at."""
    checks: tuple[ProofCheck, ...]
    """Each once, as it came out worst."""
    sizes: str = ""
    """Which sizes of an option were looked at in the place of the one that is set, and why; empty: as it is set."""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[ProofCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.result == "failed")

    @property
    def verdict(self) -> str:
        """`proven`; what was not claimed, where that is what the loss minimises; or which checks failed."""
        if self.failures:
            return f"not proven: {', '.join(check.name for check in self.failures)}"
        unclaimed = [check.name for check in self.checks if check.result == "not claimed"]
        if EXPECTED not in unclaimed:
            return "proven"
        others = ", ".join(name for name in unclaimed if name != EXPECTED)
        nor = f", and nothing of {others}" if others else ""
        return f"nothing is claimed (minimises() is None){nor}; all other checks passed"

    def __str__(self) -> str:
        """A line a check."""
        return "\n".join(f"{check.name}: {check.result}: {check.sentence}" for check in self.checks)
