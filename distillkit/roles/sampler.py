"""Role `sampler`: where completions come from."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import Plugin
from distillkit.types import SampleRequest


@runtime_checkable
class TokenScorer(Protocol):
    """Gives logprobs of given tokens: every Scorer, and a Sampler that has `score` too."""

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """One outcome a request, in any order, each as soon as it is there."""
        ...


class Sampler(Plugin):
    """Samples completions.

    One that can also score given tokens under the policy of the last sync has the method `score` of a `TokenScorer`;
    evaluators use it (`EvalContext.score`).
    """

    role: ClassVar[str] = "sampler"
    stops_at_any_id: ClassVar[bool] = True
    """Whether `stop_ids` may hold any token; False: special tokens alone."""
    lowest_temperature: ClassVar[float] = 0.0
    """Below it there is temperature 0 alone: a config with one between is refused before anything is loaded."""

    @abstractmethod
    def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """One outcome a request, in any order, each as soon as it is there; a Failure loses that completion alone.

        A completion ends at `params.stop_ids` and `params.stop`, and holds what ended it.
        """

    @abstractmethod
    async def sync(self, weights: Weights) -> None:
        """Sample from this policy version from now on; rollouts say which version made them."""

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        """What a Rollout's `arrays` can hold, with limits: `topk`, `entropy`; None: no limit.

        Asked before `check`, of all that its options leave possible, and after it, of what it has found.

        A request says what is `wanted` of these, and the arrays are there then.
        """
        return {}

    def metrics(self) -> Mapping[str, float]:
        """What is measured since the last call, by full names (`concurrency/student/window`); read after each step."""
        return {}
