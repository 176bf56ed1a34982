"""Role `scorer`: what a teacher says of given tokens."""

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import ClassVar, Protocol, Self, runtime_checkable

from pydantic import PrivateAttr

from distillkit.context import RunContext
from distillkit.errors import PluginError
from distillkit.records import Failure, Score, ScoreRequest, Weights
from distillkit.roles.plugin import Plugin
from distillkit.tokenizer import Tokenizer
from distillkit.types import Teacher


class Scorer(Plugin):
    """Logprobs of given tokens under one teacher. One instance serves one teacher."""

    role: ClassVar[str] = "scorer"
    whole_windows: ClassVar[bool] = False
    """True: `score` is called once a step with all of a teacher's completions, so that the make-up of its batches
    depends on nothing else. False: it is called as each completion arrives."""

    _teacher: Teacher | None = PrivateAttr(None)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Refuse a class whose `on_sync` would never be called. Raises PluginError."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.on_sync is not Scorer.on_sync and cls.moves is Scorer.moves:
            raise PluginError(
                f"{cls.__module__}.{cls.__qualname__} has `on_sync`, which only a scorer hears whose `moves()` says "
                "that its teacher changes; define `moves` too"
            )

    def bind(self, teacher: Teacher) -> Self:
        """Called before anything else with the config's teacher entry; again once all teachers have names."""
        if self._teacher is not None and self._teacher != teacher:
            raise PluginError(
                f"one {type(self).__name__} cannot serve two teachers ({self._teacher.name!r}, {teacher.name!r}); "
                "give each its own instance"
            )
        self._teacher = teacher
        return self

    @property
    def is_bound(self) -> bool:
        """Whether `bind` gave this scorer its teacher."""
        return self._teacher is not None

    @property
    def teacher(self) -> Teacher:
        """The teacher that this scorer serves."""
        if self._teacher is None:
            raise PluginError(f"{type(self).__name__} has no teacher yet: it is bound when the run is assembled")
        return self._teacher

    def tokenizer(self, run: RunContext) -> Tokenizer | None:
        """The teacher's tokenizer, which must read the student's ids as the student does.

        None: the student's, as for a teacher that is no model; `run.tokenizer` is that from `open` on. Called after
        `check`, before weights are loaded.
        """
        return None

    @abstractmethod
    def context_length(self, run: RunContext) -> int | None:
        """The longest prompt plus completion in tokens, or None where that is not known."""

    def capabilities(self) -> Mapping[str, int | None]:
        """What a Score can hold, by open names with limits (`sampled`, `topk: 20`).

        Asked before `check`, of all that its options leave possible, and after it, of what it has found.

        A request says how many of `topk` and which `at_ids` are wanted, and the arrays are there then. `full` is no
        array: the student asks the teacher again on its own device (`distillkit_builtin.local.live_teacher`).
        """
        return {"sampled": None}

    @abstractmethod
    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """One outcome a request, in any order, each as soon as it is there; a Failure loses that completion alone."""

    def moves(self) -> bool:
        """Whether the teacher changes with the student (itself, a moving average of it): it hears `on_sync` then."""
        return False

    async def on_sync(self, weights: Weights) -> None:
        """Change, since the student published `weights`; only where `moves` says so, and nowhere else.

        Called when everything that was sampled by older weights is scored, so that a window has scores of one
        `Score.version`. Not called for the version at which a run is resumed: `restore` has brought that back.
        """

    def metrics(self) -> Mapping[str, float]:
        """What is measured since the last call, by full names (`concurrency/<slug>/window`); read after each step."""
        return {}


@runtime_checkable
class ScoresAnew(Protocol):
    """What a Scorer has besides, if it keeps scores or has replicas: a probe asks it around both.

    Without it a probe asks by `score`, which says nothing new of scores that are kept, and mixes replicas up.
    """

    def replicas(self) -> Sequence[str]:
        """A name for each place that computes scores, at least one; known while the scorer is open."""
        ...

    def score_anew(self, requests: Sequence[ScoreRequest], replica: str) -> AsyncIterator[Score | Failure]:
        """As `score`, computed for these requests by `replica`: read from no cache and kept in none."""
        ...
