"""Names of what a loss or a weighting needs of scorers, and the one that was meant by a misspelt one."""

from collections.abc import Iterable
from difflib import get_close_matches

KNOWN_NEEDS = frozenset({"sampled", "topk", "at_ids", "full"})
"""The capabilities of scorers that the engine knows; any other is its author's own."""
ALIKE = 0.8
"""Of 1, from which on a name is one letter from another: `fulll`, `top_k`."""


def meant_by(needs: Iterable[str]) -> str:
    """`; did you mean 'full' by 'fulll'?` for names that are nearly known ones; else empty."""
    found = [(name, close[0]) for name in sorted(needs) if name not in KNOWN_NEEDS and (close := _close(name))]
    return f"; did you mean {' and '.join(f'{known!r} by {name!r}' for name, known in found)}?" if found else ""


def _close(name: str) -> list[str]:
    return get_close_matches(name[:100].lower(), sorted(KNOWN_NEEDS), n=1, cutoff=ALIKE)
