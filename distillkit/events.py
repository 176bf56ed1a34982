"""What a run tells its sinks: one frozen record an occasion.

Each holds read-only copies of what it was made from: a sink may keep it, and cannot change what the next sink hears.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distillkit.frozen import FrozenDict, Value, freeze_fields
from distillkit.records import ScoredRollout
from distillkit.types import Teacher

EvalStage = Literal["before", "during", "after"]
"""When an evaluation takes place: before training, during or after it."""
Phase = Literal["sample", "score"]


@dataclass(frozen=True, slots=True)
class Plan(Value):
    """The work of a run: upper bounds of its rows, steps and tokens."""

    rows: int
    """Row-epochs that will be admitted."""
    steps: int
    """`train.max_steps`, or what the rows are enough for."""
    optimizer_steps: int
    """Steps x `train.num_substeps`."""
    eval_rows: int
    """Held-out rows."""
    evaluations: int
    """Before, during and after training."""
    completions: int
    """Rows x `sampling.completions_per_prompt`."""
    step_rows: int
    """Rows of a step."""
    step_completions: int
    """Completions of a step."""
    longest_prompt: int
    """Tokens, of the student's prompts, held-out ones too."""
    longest_teacher_prompt: int
    """Tokens, of the teachers' prompts, held-out ones too."""
    new_tokens: int
    """Tokens of a completion: `sampling.max_completion_tokens`."""
    sample_tokens: int
    """At most: completions x max_completion_tokens."""
    score_tokens: int
    """At most, the teachers' prompts counted in."""
    train_tokens: int
    """At most, the student's prompts counted in."""
    eval_sample_tokens: int
    """At most, over all evaluations; what evaluators ask for besides the students' completions is not in it."""
    eval_score_tokens: int
    """At most, the teachers' prompts counted in."""


@dataclass(frozen=True, slots=True)
class RunStarted(Value):
    """Everything is loaded; the first evaluation or step comes next."""

    name: str
    """The run's."""
    run_dir: Path
    """The run directory."""
    plan: Plan
    teachers: tuple[Teacher, ...]
    """All teachers, in the config's order."""
    first_step: int
    """1, or the step after the checkpoint that was resumed."""
    config: Mapping[str, object]
    """The resolved config, as it stands in `config.yaml`."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        object.__setattr__(self, "teachers", tuple(self.teachers))
        freeze_fields(self, "config")


@dataclass(frozen=True, slots=True)
class PhaseProgress(Value):
    """Work inside a step or an evaluation moved on."""

    phase: Phase
    """`sample` or `score`."""
    done: int
    """Completions that were sampled or failed; or scores."""
    total: int
    """How many there will be in this step or evaluation."""


@dataclass(frozen=True, slots=True)
class StepFinished(Value):
    """One optimizer step was trained and its weights published."""

    step: int
    """The step's number, counted from 1."""
    metrics: Mapping[str, float]
    """As in `metrics.jsonl`, but for those of an evaluation that follows the step."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "metrics")


@dataclass(frozen=True, slots=True)
class EvalResult(Value):
    """What one evaluator found on the held-out rows."""

    metrics: Mapping[str, float]
    """Over all rows: `{"exact_match": 0.5}` becomes `eval/exact_match`."""
    routes: Mapping[str, Mapping[str, float]] = field(default_factory=FrozenDict)
    """Metrics by route label, from evaluators that separate routes: they become `eval_route/<slug>/exact_match`."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "metrics", "routes")


@dataclass(frozen=True, slots=True)
class Evaluated(Value):
    """An evaluation of one policy version is complete."""

    stage: EvalStage
    step: int
    """Optimizer steps trained so far."""
    results: Mapping[str, EvalResult]
    """Evaluator name to result."""
    examples: tuple[ScoredRollout, ...] = ()
    """Some completions of each route, to look at."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        object.__setattr__(self, "examples", tuple(self.examples))
        freeze_fields(self, "results")


@dataclass(frozen=True, slots=True)
class Notice(Value):
    """Something that the user should know; it is in `run.log` too."""

    message: str
    """A sentence; secrets that stand in the environment are taken out."""
    level: Literal["info", "warning"] = "info"
    """The log level."""


@dataclass(frozen=True, slots=True)
class RunFinished(Value):
    """The run is over, well or not."""

    summary: Mapping[str, object]
    """The content of `summary.json`."""
    error: str | None = None
    """What ended the run before its time, on one line; None where it completed."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "summary")


Event = RunStarted | PhaseProgress | StepFinished | Evaluated | Notice | RunFinished
