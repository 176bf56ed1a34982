"""What prompts of a batch have in common, so that it is computed once: whole prompts, and how all of them begin."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from distillkit.arrays import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class DistinctPrompts:
    """The different prompts among some, in the order in which each comes first."""

    prompts: list[IntArray]
    """Each different prompt [P] once."""
    row_of: list[int]
    """Which of `prompts` each given one is."""
    members: list[list[int]]
    """For each of `prompts`, the indices of the given ones that are equal to it, in order."""

    @classmethod
    def of(cls, given: Iterable[IntArray]) -> "DistinctPrompts":
        """Group the equal ones among the prompts that are given."""
        rows: dict[bytes, int] = {}
        found = cls([], [], [])
        for index, prompt in enumerate(given):
            row = rows.setdefault(prompt.tobytes(), len(rows))
            if row == len(found.prompts):
                found.prompts.append(prompt)
                found.members.append([])
            found.row_of.append(row)
            found.members[row].append(index)
        return found


def common_prefix_length(prompts: Sequence[IntArray]) -> int:
    """How many tokens all prompts begin with; the last token of each is left over, since it predicts the response."""
    shortest = min(map(len, prompts)) - 1
    first = prompts[0][:shortest]
    different = [np.flatnonzero(prompt[:shortest] != first) for prompt in prompts[1:]]
    return min((int(positions[0]) for positions in different if positions.size), default=shortest)
