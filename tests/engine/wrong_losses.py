"""Losses that return something of another type."""

from typing import Any, ClassVar

from distillkit import Loss


class ListLoss(Loss):
    """Returns no batch."""

    name: ClassVar[str] = "list"
    loss_function: ClassVar[str] = "importance_sampling"

    def options(self) -> dict[str, float]:
        return {}

    def batch(self, scored: Any) -> Any:
        return list(scored)
