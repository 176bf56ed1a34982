"""How much probability student and teachers had on rows that not all sides know, and that losses do not see."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class UnknownMass:
    """Sums over some positions; 0 positions of a side whose heads have no such rows."""

    student: float = 0.0
    student_positions: int = 0
    teacher: float = 0.0
    teacher_positions: int = 0


def summed(mass: Tensor | None) -> Tensor | None:
    """[2]: a side's unknown probability [n], summed, and of how many positions; None of a side that loses none."""
    return None if mass is None else torch.stack([mass.sum(), torch.full_like(mass[0], mass.numel())])


class UnknownMassMeter:
    """Sums over one share of an optimizer step, kept on the device until they are read."""

    def __init__(self) -> None:
        """An empty meter."""
        self._student: list[Tensor] = []
        self._teacher: list[Tensor] = []

    def add(self, student: Tensor | None, teacher: Tensor | None) -> None:
        """Take each side's `summed` mass of a chunk of positions; nothing is allocated."""
        for sums, mass in ((self._student, student), (self._teacher, teacher)):
            if mass is not None:
                sums.append(mass)

    def read(self) -> UnknownMass:
        """The mass at every position since the last call."""
        (student, student_count), (teacher, teacher_count) = map(_total, (self._student, self._teacher))
        self._student, self._teacher = [], []
        return UnknownMass(student, student_count, teacher, teacher_count)


def _total(sums: Sequence[Tensor]) -> tuple[float, int]:
    if not sums:
        return 0.0, 0
    total, count = torch.stack(list(sums)).double().sum(0).tolist()
    return total, int(count)


def unknown_mass_metrics(shares: Sequence[UnknownMass]) -> dict[str, float]:
    """The mean of each side; nothing of a side whose heads have no such rows."""
    sides = {
        "train/unknown_mass": [(share.student, share.student_positions) for share in shares],
        "train/teacher_unknown_mass": [(share.teacher, share.teacher_positions) for share in shares],
    }
    counts = {name: sum(count for _, count in found) for name, found in sides.items()}
    return {name: math.fsum(mass for mass, _ in sides[name]) / count for name, count in counts.items() if count}
