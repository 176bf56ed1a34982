"""What a run asks of its sampler and scorers beyond the sampled tokens: the most that loss and weightings need."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from distillkit.arrays import IntArray
from distillkit.config.run_config import RunConfig
from distillkit.frozen import FrozenDict, Value, freeze_fields
from distillkit.records import Rollout, ScoreRequest
from distillkit.roles.loss import Loss
from distillkit.roles.weighting import Weighting


@dataclass(frozen=True, slots=True)
class Wanted(Value):
    """By capability with the amount."""

    of_sampler: Mapping[str, int] = field(default_factory=FrozenDict)
    """As `SampleRequest.wanted`."""
    of_scorers: Mapping[str, int] = field(default_factory=FrozenDict)
    """Without `sampled`, which every scorer gives."""

    references: tuple[str, ...] = ()
    """Teachers that are asked of each sampled token besides those of the row's route."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "of_sampler", "of_scorers")

    @classmethod
    def by(cls, config: RunConfig) -> "Wanted":
        """What a config's loss and weightings need."""
        plugins: tuple[Loss | Weighting, ...] = (config.loss, *config.train.weightings)
        needs = _most(plugin.needs() for plugin in plugins)
        needs.pop("sampled", None)
        return cls(_most(plugin.sampler_needs() for plugin in plugins), needs, config.loss.references())

    def fill(self, request: ScoreRequest) -> ScoreRequest:
        """A score request with what is wanted: `topk`, and as `at_ids` the top-K ids of the policy that sampled."""
        topk, ids = self.of_scorers.get("topk", 0), self._ids(request.rollout)
        return replace(request, topk=topk, at_ids=ids) if topk or ids is not None else request

    def _ids(self, rollout: Rollout) -> IntArray | None:
        return rollout.arrays.get("topk_ids") if "at_ids" in self.of_scorers else None


def _most(needs: Iterable[Mapping[str, int]]) -> dict[str, int]:
    most: dict[str, int] = {}
    for each in needs:
        most |= {name: max(amount, most.get(name, 0)) for name, amount in each.items()}
    return most
