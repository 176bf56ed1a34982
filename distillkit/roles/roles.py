"""The abstract base class of each role: who decides what, who owns what, and what may raise.

A plugin is a frozen pydantic model whose fields, each with a description, are its options. The engine constructs it
(no I/O), `check`s it (reads tokenizers, keys and capabilities; loads no weights, creates nothing, costs nothing),
`open`s it, uses it and `close`s it. What it holds while it is open are private attributes. An exception from any
role but a Sink ends the run.
"""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, cast, runtime_checkable

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    PrivateAttr,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from distillkit.context import RunContext
from distillkit.errors import PluginError
from distillkit.events import EvalResult, EvalStage, Event
from distillkit.tokenizer import Tokenizer
from distillkit.types import (
    Array,
    Batch,
    ChatPrompts,
    Failure,
    Rollout,
    Route,
    Row,
    SampleRequest,
    Score,
    ScoredRollout,
    ScoreRequest,
    StepResult,
    Teacher,
    TorchLoss,
    Weights,
)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a plugin found out about the run before anything is loaded; `distillkit check` prints it."""

    notes: tuple[str, ...] = ()
    """One line each: what will be loaded, created or reused."""
    memory_bytes: int | None = None
    """What the plugin expects to hold at its peak, where it knows."""
    missing: str | None = None
    """What is not installed and must be before the run, as one line with the pip command; None: nothing."""


class PluginBuilder(Protocol):
    """What turns a plugin's name and options into the plugin; a `Registry` is one."""

    def build(self, role: str, choice: object) -> "Plugin":
        """The plugin of `role` that `choice` (a name, or options with a `name`) describes."""
        ...


class Plugin(BaseModel, ABC):
    """What all roles have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    role: ClassVar[str] = ""
    name: ClassVar[str] = ""
    """How a config chooses the plugin; unique in its role."""
    volatile: ClassVar[frozenset[str]] = frozenset()
    """Options that a resumed run may have otherwise, since no number depends on them by more than rounding."""
    writes: ClassVar[frozenset[str]] = frozenset()
    """Names of the files and folders that it writes in the run's directory: `--overwrite` removes these, and leaves
    alone what nobody writes."""

    def check(self, run: RunContext) -> CheckReport | None:
        """Find out whether this plugin can run. Raise `InputError` if the user has to change something."""

    def fingerprint(self) -> Mapping[str, str]:
        """What the numbers come from besides the options, as far as that is known after `check`, by what it is.

        Such as `{"weights": "<digest>"}`: a run is resumed only with the same values, of names that both times were
        given. Cheap; called in a worker thread, before `open`.
        """
        return {}

    async def open(self, run: RunContext) -> None:
        """Load or connect. Whatever is made here belongs to this plugin, or to `run.share`."""

    async def close(self) -> None:
        """Let go of what `open` made; called once, also after an error."""

    def state(self) -> Mapping[str, JsonValue]:
        """What a checkpoint must keep of this plugin, as JSON."""
        return {}

    def tensors(self) -> Mapping[str, Array]:
        """What a checkpoint must keep of this plugin, as named arrays."""
        return {}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """Take back what `state` and `tensors` gave, after `open`.

        Sampler, Scorer, Loss and Student are also asked in the middle of a run that goes back (`guards.action:
        rollback`); both are empty then where they had nothing to keep at the checkpoint.
        """

    @classmethod
    def is_complete(cls) -> bool:
        """Whether this class can be chosen by name: it has one, and implements its role."""
        return bool(cls.name) and bool(cls.role) and not inspect.isabstract(cls)

    @classmethod
    def describe(cls) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """In a config, a field annotated with a role takes a name, options with a `name`, or an instance."""
        if "role" not in cls.__dict__:
            return handler(source)
        return core_schema.with_info_plain_validator_function(
            cls._resolve, serialization=core_schema.plain_serializer_function_ser_schema(cls._dump)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Leave a mark where a role stands, which `distillkit config schema` replaces by the known plugins."""
        return {"x-distillkit-role": cls.role} if "role" in cls.__dict__ else handler(schema)

    @classmethod
    def _resolve(cls, value: object, info: ValidationInfo) -> "Plugin":
        if isinstance(value, cls):
            return value
        if isinstance(value, Plugin) or (inspect.isclass(value) and issubclass(value, Plugin)):
            raise ValueError(f"wants an instance of {cls.__name__}, not {value!r}")
        builder = (info.context or {}).get("registry")
        if builder is None:
            raise ValueError("a plugin is chosen by name in a RunConfig only; pass an instance here")
        return cast(PluginBuilder, builder).build(cls.role, value)

    @staticmethod
    def _dump(plugin: "Plugin") -> dict[str, JsonValue]:
        return {"name": plugin.name, **plugin.model_dump(mode="json")}


class Router(Plugin):
    """Decides which teacher scores a row. Pure: the same row always gets the same route."""

    role: ClassVar[str] = "router"

    @abstractmethod
    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        """The teachers that score `row`. Raise `RowError` if the row names none; the engine adds file and line."""


class PromptBuilder(Plugin):
    """Decides which messages student and teachers each read. Pure."""

    role: ClassVar[str] = "prompt_builder"

    @abstractmethod
    def build(self, row: Row, route: Route, teachers: Sequence[Teacher]) -> ChatPrompts:
        """The messages for the student and for each teacher of the route. Raise `RowError` for a row without them."""


@runtime_checkable
class TokenScorer(Protocol):
    """Whatever gives logprobs of given tokens: every Scorer, and a Sampler that has `score` too."""

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """One outcome a request, in any order, each as soon as it is there."""
        ...


class Sampler(Plugin):
    """Where completions come from.

    One that can also score given tokens under the policy of the last sync has the method `score` of a `TokenScorer`;
    evaluators use it (`EvalContext.score`).
    """

    role: ClassVar[str] = "sampler"

    @abstractmethod
    def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """One outcome a request, in any order, each as soon as it is there."""

    @abstractmethod
    async def sync(self, weights: Weights) -> None:
        """Sample from this policy version from now on; rollouts say which version made them."""

    def metrics(self) -> Mapping[str, float]:
        """What is measured since the last call, by full names (`concurrency/student/window`); read after each step."""
        return {}


class Student(Plugin):
    """The model that is trained: its weights, its optimizer, its checkpoints. Usually a Sampler too."""

    role: ClassVar[str] = "student"
    runs_torch_losses: ClassVar[bool] = False
    """Whether a Loss's own torch function can be used for a loss function that the student does not know."""
    loads_in_place: ClassVar[bool] = False
    """Whether `load` also works after training, as `guards.action: rollback` asks of it; the next `publish` has a new
    version."""
    spreads: ClassVar[bool] = False
    """Whether a run may have several processes that torchrun started: rank 0 runs the engine, the others `work`."""

    sampler: Sampler | None = Field(None, description="Where completions come from; null: the student itself.")

    @abstractmethod
    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The student's tokenizer. Called after `check`, before weights are loaded."""

    @abstractmethod
    def context_length(self, run: RunContext) -> int | None:
        """The longest prompt plus completion in tokens, or None where that is not known."""

    @abstractmethod
    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        """The loss functions that the student knows by name, and the options that each takes."""

    @abstractmethod
    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step on the whole batch: the sum over tokens of `weights * loss`.

        Raises:
            BadStepError: if loss or gradient is not finite; weights and optimizer are as they were then.
        """

    @abstractmethod
    async def publish(self, version: int) -> Weights:
        """Make the current weights available to samplers as policy `version`."""

    @abstractmethod
    async def save(self, path: Path) -> None:
        """Write weights and optimizer state into the existing directory `path`, for `load`."""

    @abstractmethod
    async def load(self, path: Path) -> None:
        """Take back what `save` wrote."""

    @abstractmethod
    async def export(self, run_dir: Path) -> Path:
        """Write the final weights for others to use, into `run_dir`; return the directory or file."""

    async def until_broken(self) -> None:
        """Wait until the student cannot go on, and raise why; the run ends then, whatever it is waiting for.

        By default this waits for ever.
        """
        await asyncio.get_running_loop().create_future()

    async def work(self, run: RunContext) -> None:
        """What every process but rank 0 does, on a student that was not opened there: its share, until the run ends."""
        raise PluginError(f"{type(self).__name__} has `spreads` set, and no `work`")


class Scorer(Plugin):
    """Logprobs of given tokens under one teacher. One instance serves one teacher."""

    role: ClassVar[str] = "scorer"
    whole_windows: ClassVar[bool] = False
    """True: `score` is called once a step with all of a teacher's completions, so that the make-up of its batches
    depends on nothing else. False: it is called as each completion arrives."""

    _teacher: Teacher | None = PrivateAttr(None)

    def bind(self, teacher: Teacher) -> Self:
        """Called once, with the config's teacher entry, before anything else."""
        if self._teacher is not None and self._teacher != teacher:
            raise PluginError(
                f"one {type(self).__name__} cannot serve two teachers ({self._teacher.name!r}, {teacher.name!r}); "
                "give each its own instance"
            )
        self._teacher = teacher
        return self

    @property
    def is_bound(self) -> bool:
        """Whether it has its teacher."""
        return self._teacher is not None

    @property
    def teacher(self) -> Teacher:
        """The teacher that this scorer serves."""
        if self._teacher is None:
            raise PluginError(f"{type(self).__name__} has no teacher yet: it is bound when the run is assembled")
        return self._teacher

    @abstractmethod
    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The teacher's tokenizer. Called after `check`, before weights are loaded."""

    @abstractmethod
    def context_length(self, run: RunContext) -> int | None:
        """The longest prompt plus completion in tokens, or None where that is not known."""

    def capabilities(self) -> Mapping[str, int | None]:
        """What a Score can hold, by open names with limits (`sampled`, `topk: 20`). Known after `check`."""
        return {"sampled": None}

    @abstractmethod
    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """One outcome a request, in any order, each as soon as it is there."""

    async def on_sync(self, version: int) -> None:
        """Hear that the student published policy `version`; a self or moving-average teacher changes here.

        Not called for the version at which a run is resumed: `restore` has brought that back.
        """

    def metrics(self) -> Mapping[str, float]:
        """What is measured since the last call, by full names (`concurrency/<slug>/window`); read after each step."""
        return {}


class Loss(Plugin):
    """Turns scored rollouts into training data for a named loss function."""

    role: ClassVar[str] = "loss"
    loss_function: ClassVar[str] = ""
    """What students know the loss by."""
    needs: ClassVar[Mapping[str, int]] = {"sampled": 1}
    """The capabilities that scorers must have, with the least limit of each."""
    max_teachers: ClassVar[int | None] = 1
    """How many teachers a row may be routed to; None: any number."""

    @abstractmethod
    def options(self) -> Mapping[str, float]:
        """The options that travel to the student with each batch."""

    def torch_loss(self) -> TorchLoss | None:
        """The loss function's own code, for students that do not know it by name; None: it has none.

        `function(logprobs, inputs, options)` gets logprobs [N] with gradient, `inputs` of [N] tensors (what `batch` put
        into each datum, such as `advantages`) and `options()`, over all response tokens of a micro-batch end to end. It
        returns the loss of each token [N]; the student multiplies by `weights` and sums. `loss_function` is then a name
        of its own. Over several processes it travels by pickle: a function at the top of a module.
        """
        return None

    @abstractmethod
    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        """The data of one optimizer step, in the order given."""


EvalNeed = Literal["teacher_samples", "student_scores"]


class EvalContext(Protocol):
    """The held-out rows and one policy version, for evaluators. Completions are drawn once and shared by all."""

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
        """The policy that is judged."""
        ...

    @property
    def teachers(self) -> Sequence[Teacher]:
        """All teachers of the run."""
        ...

    def route(self, row: Row) -> Route:
        """Which teachers the row is routed to."""
        ...

    async def rollouts(self) -> Sequence[Rollout]:
        """The student's completions of the held-out rows, in row order; drawn at the first call."""
        ...

    async def scored(self) -> Sequence[ScoredRollout]:
        """The same completions with the scores of their routed teachers; scored at the first call."""
        ...

    async def sample_teacher(self, teacher: str, *, privileged: bool = True, seed: int = 0) -> Sequence[Rollout] | None:
        """The teacher's own completions of the rows routed to it, under its privileged prompt or the student's.

        None where the teacher's scorer cannot sample. Not shared: each call draws anew, with seeds from `seed`.
        """
        ...

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score] | None:
        """Logprobs of given completions of held-out rows, whoever made them, in their order; failed ones are left out.

        Under the policy that is judged, after the row's student prompt (`teacher` None; None is returned where the
        sampler cannot score), or under a teacher, after its privileged prompt for the row or the student's.
        """
        ...


class Evaluator(Plugin):
    """Judges whether the student is getting better, on held-out rows."""

    role: ClassVar[str] = "evaluator"
    needs: ClassVar[frozenset[EvalNeed]] = frozenset()
    """What a run must offer, or `check` refuses: that all teachers can sample, that the student can score."""

    @abstractmethod
    async def evaluate(self, context: EvalContext) -> EvalResult:
        """Metrics of the policy version in `context`; all evaluators of one occasion share its completions."""


class Sink(Plugin):
    """Where metrics and events also go. Its exceptions are caught, counted and logged; they never end a run."""

    role: ClassVar[str] = "sink"

    @abstractmethod
    def emit(self, event: Event) -> None:
        """Take one event. Must return at once: what is slow belongs into a thread of the sink's own."""

    def silence(self) -> None:
        """Show nothing on the terminal from now on; for `distillkit -q`. Sinks that write elsewhere go on."""


ROLES: Mapping[str, type[Plugin]] = {
    role.role: role for role in (Router, PromptBuilder, Student, Sampler, Scorer, Loss, Evaluator, Sink)
}
