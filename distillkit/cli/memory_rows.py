"""The memory of a run on `check`'s page: each device's peak against what is there, and what it is made of."""

from collections.abc import Iterator, Sequence

from distillkit.memory import gib
from distillkit.preflight.memory_fit import DeviceFit

WORTH_NAMING = 0.02
"""The share of a sum that a part must have to be named; the rest is added up."""


def memory_rows(fits: Sequence[DeviceFit]) -> Iterator[tuple[str, str]]:
    """Label and text of each line."""
    for fit in fits:
        memory, phase = fit.memory, fit.largest_phase[1]
        when = f" ({phase})" if phase else ""
        room = f"{memory.shown_total}, {gib(memory.free_bytes)} of it free"
        yield f"memory, {memory.device}", f"about {gib(fit.peak)} at the peak{when}; {memory.label} has {room}"
        weights = [(use.size_bytes, f"{use.what} ({key})") for key, use in fit.shared_uses("weights")]
        caches = [(use.size_bytes, f"{use.what} ({key})") for key, use in fit.shared_uses("caches")]
        largest = [(use.size_bytes, use.what) for use in fit.phase_uses]
        for label, parts in (("always", weights), ("from step to step", caches), (f"in {phase}", largest)):
            if parts:
                yield f"  {label}", _sum(parts)


def _sum(parts: Sequence[tuple[int, str]]) -> str:
    """`3.0 GiB: 2.0 GiB this, 1.0 GiB that`, of parts with the largest first."""
    whole = sum(size for size, _ in parts)
    named = [(size, what) for size, what in parts if size >= WORTH_NAMING * whole]
    rest = whole - sum(size for size, _ in named)
    words = [f"{gib(size)} {what}" for size, what in named] + ([f"{gib(rest)} of others"] if rest else [])
    return f"{gib(whole)}: {', '.join(words)}"
