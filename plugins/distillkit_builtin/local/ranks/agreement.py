"""How all ranks compute a student: in the plainest way that any of them found.

Each rank proves by itself what may be computed together. Near a tolerance, on another device or with other packages,
two may find different answers: they would train by two ways, and with sharded weights, where every rank must take
equally many micro-batches, wait for each other for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from distillkit_builtin.local.model.batching import Batching


@dataclass(frozen=True, slots=True)
class Ways:
    """How a student may be computed, as one rank found, or all of them together."""

    batching: Batching
    packs: bool
    """Sequences are packed in training."""
    not_packed: str | None
    """Why they are not, where that was tried."""
    whole: bool
    """Each rank keeps all weights."""

    def faster(self) -> dict[str, bool]:
        """Whether each of the faster ways is taken, by what the user calls it."""
        return {
            "sequences packed in training": self.packs,
            "prompts of different lengths sampled together": self.batching.left_padding,
            "sequences of different lengths scored and trained together": self.batching.right_padding,
            "what prompts begin with computed once": self.batching.shared_prefix,
            "whole weights on each rank": self.whole,
        }


def plainest(found: Sequence[Ways]) -> Ways:
    """What every rank may do, of what each found; the reason is of the first rank that has one."""
    return Ways(
        batching=Batching(
            left_padding=all(each.batching.left_padding for each in found),
            right_padding=all(each.batching.right_padding for each in found),
            shared_prefix=all(each.batching.shared_prefix for each in found),
        ),
        packs=all(each.packs for each in found),
        not_packed=next((each.not_packed for each in found if each.not_packed is not None), None),
        whole=all(each.whole for each in found),
    )


def difference(found: Sequence[Ways], name: str) -> str | None:
    """What the user is told where ranks, in their order, found different things of the model `name`."""
    parts = []
    for way in found[0].faster():
        without = [str(rank) for rank, each in enumerate(found) if not each.faster()[way]]
        if 0 < len(without) < len(found):
            parts.append(f"{way} (not on rank {', '.join(without)})")
    if not parts:
        return None
    return f"{name}: ranks found different ways to be exact here, and all take the plainest, without {'; '.join(parts)}"
