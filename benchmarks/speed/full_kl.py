"""Whole steps by distillkit on whole distributions: reverse KL over the full vocabulary, teachers asked again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.speed import ours
from benchmarks.speed.shapes import Shape
from distillkit import Loss, Positions, TokenLoss


class FullReverseKL(Loss):
    """`sum_v p_v (log p_v - log q_v)` of the student's next-token distribution p and the teacher's q."""

    name: ClassVar[str] = "full_reverse_kl"

    def needs(self) -> Mapping[str, int]:
        """The teacher's distribution."""
        return {"full": 1}

    def reads(self) -> frozenset[str]:
        """The student's distribution."""
        return frozenset({"distribution"})

    def token_loss(self) -> TokenLoss:
        """`reverse_kl`, below."""
        return reverse_kl


def reverse_kl(positions: Positions, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a torch tensor
    """[n] in nats."""
    return (positions.student.exp() * (positions.student - positions.teacher)).sum(-1)


def measure(inputs: dict[str, Path], shape: Shape, steps: int, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As `ours.measure`, with this loss."""
    return ours.measure(inputs, shape, steps, options, folder, FullReverseKL())
