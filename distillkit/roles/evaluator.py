"""Role `evaluator`: is the student getting better?"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from distillkit.events import EvalResult, EvalStage, Measure
from distillkit.frozen import FrozenDict, Value, freeze_fields
from distillkit.records import Rollout, Score, ScoredRollout
from distillkit.roles.plugin import Plugin
from distillkit.types import Route, RoutedRow, Row, Teacher

EvalNeed = Literal["teacher_samples", "student_scores"]
"""That all teachers can sample (`sample_teacher`); that the student can score given tokens (`score`)."""


@dataclass(frozen=True, slots=True)
class EvalRequests(Value):
    """What an evaluator asks for in a whole run besides the student's completions and their scores, at most."""

    teacher_completions: Mapping[str, int] = field(default_factory=FrozenDict)
    """By teacher: the completions that it writes (`EvalContext.sample_teacher`)."""
    student_scores: int = 0
    """The completions of others that the student scores (`EvalContext.score`)."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "teacher_completions")


class EvalContext(Protocol):
    """The held-out rows and one policy version, for evaluators. Completions are sampled once and shared by all."""

    @property
    def rows(self) -> Sequence[Row]:
        """The held-out rows, in file order."""
        ...

    @property
    def stage(self) -> EvalStage:
        """Whether this is the evaluation before, during or after training."""
        ...

    @property
    def step(self) -> int:
        """Optimizer steps trained so far."""
        ...

    @property
    def policy_version(self) -> int:
        """The policy that is evaluated: optimizer steps in the published weights."""
        ...

    @property
    def teachers(self) -> Sequence[Teacher]:
        """All teachers of the run."""
        ...

    def route(self, row: Row) -> Route:
        """Which teachers the row is routed to."""
        ...

    async def rollouts(self) -> Sequence[Rollout]:
        """The student's completions of the held-out rows, in row order; sampled at the first call."""
        ...

    async def scored(self) -> Sequence[ScoredRollout]:
        """The same completions with the scores of their routed teachers; scored at the first call."""
        ...

    async def sample_teacher(self, teacher: str, *, privileged: bool = True, seed: int = 0) -> Sequence[Rollout] | None:
        """The teacher's own completions of the rows routed to it, under its privileged prompt or the student's.

        None where the teacher's scorer cannot sample. Not shared: each call samples anew, with seeds from `seed`.
        """
        ...

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score] | None:
        """Logprobs of given completions of held-out rows, whoever sampled them, in order; failed ones are left out.

        Under the policy that is evaluated, after the row's student prompt (`teacher` None; None is returned where the
        sampler cannot score), or under a teacher, after its privileged prompt for the row or the student's.
        """
        ...


class Evaluator(Plugin):
    """Measures whether the student is getting better, on held-out rows."""

    role: ClassVar[str] = "evaluator"
    needs: ClassVar[frozenset[EvalNeed]] = frozenset()
    """What a run must offer, or `distillkit check` refuses it."""
    measures: ClassVar[Mapping[str, Measure]] = FrozenDict()
    """What people read of its metrics, by metric name; empty: all of them, by their own names. Files hold them all."""

    def notes(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher]) -> Sequence[str]:
        """What of the held-out `rows` makes its metrics mean less than they seem to: a sentence each, with what to do.

        Such as rows without the field that completions are compared with. Pure; called before anything is loaded, and
        `distillkit check` and the run say it.
        """
        return ()

    def requests(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher], evaluations: int) -> EvalRequests:
        """What it asks for of the held-out `rows` in a run of so many `evaluations`: `distillkit check` counts it in.

        A teacher whose scorer cannot sample is left out there. Pure; by default nothing.
        """
        return EvalRequests()

    @abstractmethod
    async def evaluate(self, context: EvalContext) -> EvalResult:
        """Metrics of the policy version in `context`, finite numbers by name; what is raised ends the run."""
