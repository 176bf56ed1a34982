"""Students that say which loss functions they know."""

from collections.abc import Mapping

from pydantic import PrivateAttr

from distillkit.testing import FakeStudent
from distillkit.training_data import Batch, StepResult


class OwnFunction(FakeStudent):
    """Knows a loss function of its own alone, and says when it trains."""

    _trained: list[Batch] = PrivateAttr(default_factory=list)

    @property
    def trained(self) -> list[Batch]:
        return self._trained

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        return {"own": frozenset()}

    async def train(self, batch: Batch) -> StepResult:
        self._trained.append(batch)
        return await super().train(batch)


class Optionless(OwnFunction):
    """Its importance_sampling takes no options."""

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        return {"importance_sampling": frozenset()}
