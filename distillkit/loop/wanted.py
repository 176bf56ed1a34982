"""What a run asks of its sampler and scorers beyond the sampled tokens: the most that loss and weightings need.

Where several teachers score a row, and a loss needs both their top-K and `at_ids`, each has to say what it makes of the
others' top-K: they are asked a second time, for the union, when all of them have given theirs. One teacher's own top-K
is there with its first answer, so one round suffices: its `at_ids` are those of the policy that sampled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from distillkit.arrays import IntArray
from distillkit.config.run_config import RunConfig
from distillkit.frozen import FrozenDict, Value, freeze_fields
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.roles.loss import Loss
from distillkit.roles.weighting import Weighting
from distillkit.token_arrays import union_of_ids
from distillkit.types import Route


@dataclass(frozen=True, slots=True)
class Wanted(Value):
    """By capability with the amount."""

    of_sampler: Mapping[str, int] = field(default_factory=FrozenDict)
    """As `SampleRequest.wanted`."""
    of_scorers: Mapping[str, int] = field(default_factory=FrozenDict)
    """Without `sampled`, which every scorer gives."""
    sampler_ids: int = 0
    """How many of the sampler's top-K ids are among `at_ids`: those that what needs `at_ids` asks the sampler for."""
    teacher_ids: int = 0
    """The same of each teacher's, where a row has several."""
    references: tuple[str, ...] = ()
    """Teachers that are asked of each sampled token besides those of the row's route."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "of_sampler", "of_scorers")

    @classmethod
    def by(cls, config: RunConfig) -> "Wanted":
        """What a config's loss and weightings need."""
        return cls.of([config.loss, *config.train.weightings])

    @classmethod
    def of(cls, plugins: Sequence[Loss | Weighting]) -> "Wanted":
        """What these need."""
        needs = _most(plugin.needs() for plugin in plugins)
        needs.pop("sampled", None)
        # Another plugin may want more of the same top-K; that must not change what this one's ids are.
        supported = [plugin for plugin in plugins if "at_ids" in plugin.needs()]
        return cls(
            _most(plugin.sampler_needs() for plugin in plugins),
            needs,
            max((plugin.sampler_needs().get("topk", 0) for plugin in supported), default=0),
            max((plugin.needs().get("topk", 0) for plugin in supported), default=0),
            tuple(name for plugin in plugins if isinstance(plugin, Loss) for name in plugin.references()),
        )

    def unites(self, route: Route) -> bool:
        """Whether the teachers of a row are asked a second time, for the union of their top-K."""
        return self.teacher_ids > 0 and len(route.teachers) > 1

    def first(self, request: ScoreRequest, route: Route) -> ScoreRequest:
        """A score request with what is wanted: `topk`, and `at_ids` unless those follow from the answers."""
        topk = self.of_scorers.get("topk", 0)
        ids = None if self.unites(route) else self._sampler_ids(request.rollout)
        return replace(request, topk=topk, at_ids=ids) if topk or ids is not None else request

    def second(self, scores: Sequence[Score]) -> list[ScoreRequest]:
        """What all teachers of a row are asked when each has given its top-K: the union, without asking for more."""
        tables = [score.arrays["topk_ids"][:, : self.teacher_ids] for score in scores]
        sampled = self._sampler_ids(scores[0].request.rollout)
        union = union_of_ids(tables if sampled is None else [*tables, sampled])
        return [replace(score.request, topk=0, at_ids=union) for score in scores]

    def _sampler_ids(self, rollout: Rollout) -> IntArray | None:
        return rollout.arrays["topk_ids"][:, : self.sampler_ids] if self.sampler_ids else None


def both_rounds(first: Score, second: Score) -> Score:
    """A teacher's top-K and the sampled tokens' logprobs of its first answer, with `at_logprobs` of its second."""
    request = replace(first.request, at_ids=second.request.at_ids)
    return replace(first, request=request, arrays={**second.arrays, **first.arrays})


def _most(needs: Iterable[Mapping[str, int]]) -> dict[str, int]:
    most: dict[str, int] = {}
    for each in needs:
        most |= {name: max(amount, most.get(name, 0)) for name, amount in each.items()}
    return most
