"""What a run tells its sinks: one frozen record an occasion.

Each holds read-only copies of what it was made from: a sink may keep it, and cannot change what the next sink hears.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distillkit.frozen import FrozenDict, Value, freeze_fields, require_numbers
from distillkit.records import ScoredRollout
from distillkit.run_plan import Plan
from distillkit.significant import significant
from distillkit.types import Teacher

EvalStage = Literal["before", "during", "after"]
"""When an evaluation takes place: before training, during or after it."""
NoticeKind = Literal["note", "warning"]
Phase = Literal["sample", "score"]
Activity = Literal["load", "publish", "probe", "evaluate", "sample", "train", "save", "export"]
"""What a run does one after the other: plugins are loaded; weights published to the sampler; sampler and teachers
probed; the policy evaluated; a step's completions sampled and scored, then trained; a checkpoint saved; the final
weights written. Off policy the next completions are sampled meanwhile."""


@dataclass(frozen=True, slots=True)
class RunStarted(Value):
    """Everything is loaded; the first evaluation or step comes next."""

    name: str
    """The run's."""
    run_dir: Path
    """The run directory."""
    plan: Plan
    teachers: tuple[Teacher, ...]
    """The teachers that rows are routed to, in the config's order."""
    first_step: int
    """1, or the step after the checkpoint that was resumed; or its own, if that was not told of to its end."""
    config: Mapping[str, object]
    """The resolved config, as it stands in `config.yaml`."""
    objective: str = ""
    """What is trained on, in a line: the loss with the options that are not at their defaults, what it is divided by,
    weightings, the mixture of a row's teachers, and the teachers that the loss asks besides."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        object.__setattr__(self, "teachers", tuple(self.teachers))
        freeze_fields(self, "config")


@dataclass(frozen=True, slots=True)
class PhaseStarted(Value):
    """The run begins with something that may take a while; the one before has ended."""

    phase: Activity
    """What it does."""
    what: str = ""
    """With what: the plugin that is loaded, the evaluator that measures."""


@dataclass(frozen=True, slots=True)
class PhaseProgress(Value):
    """Work inside a step or an evaluation moved on."""

    phase: Phase
    """`sample` or `score`."""
    done: int
    """Completions that were sampled; or scores. What failed is not among them."""
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
class Measure(Value):
    """What people call a metric of an evaluator, and which way is better."""

    label: str
    """Such as `reverse KL, nats a token`."""
    better: Literal["lower", "higher"] | None = None
    """None: neither way is."""
    unit: Literal["number", "share", "count"] = "number"
    """A share is shown in percent; a count is not shown where it is 0."""

    def text(self, value: float, *, signed: bool = False, like: float | None = None) -> str:
        """A value as people read it: percent of a share, whole counts, else three significant figures.

        `like` is a value with whose decimals it is written.
        """
        if self.unit == "number" or not math.isfinite(value):
            return significant(value, signed=signed, like=like)
        size, sign = abs(value if like is None else like), "+" if signed else ""
        if self.unit == "count":
            return f"{round(value) + 0:{sign}d}"
        digits = int(0 < size < 0.01)
        return f"{round(100 * value, digits) + 0.0:{sign}.{digits}f}%"  # 0.0: no -0

    def both(self, before: float, now: float) -> str:
        """`before -> now`; shares with as many decimals."""
        like = max(before, now, key=abs) if self.unit == "share" else None
        return f"{self.text(before, like=like)} -> {self.text(now, like=like)}"


@dataclass(frozen=True, slots=True)
class RowValue(Value):
    """One held-out row's part in a metric, which is the sum of all rows' `total` by the sum of their `count`."""

    total: float
    """What is summed: 1 where an answer is right; the summed gaps of a completion."""
    count: float = 1.0
    """By what it is divided: 1 answer; the tokens of a completion."""


@dataclass(frozen=True, slots=True)
class EvalResult(Value):
    """What one evaluator found on the held-out rows."""

    metrics: Mapping[str, float]
    """Over all rows, finite; not known: left out. `{"exact_match": 0.5}` becomes `eval/exact_match`."""
    routes: Mapping[str, Mapping[str, float]] = field(default_factory=FrozenDict)
    """Metrics by route label, from evaluators that separate routes: they become `eval_route/<slug>/exact_match`."""
    by_row: Mapping[str, Mapping[str, RowValue]] = field(default_factory=FrozenDict)
    """(optional) Of such metrics what each row gave, by `Row.row_id`: with it the run's verdict compares the same rows
    before and after, and says how far off their difference may be."""

    def __post_init__(self) -> None:
        """Hold read-only copies. Raises TypeError for a metric that is no number."""
        for metrics in (self.metrics, *self.routes.values()):
            require_numbers(metrics)
        freeze_fields(self, "metrics", "routes", "by_row")


@dataclass(frozen=True, slots=True)
class PolicyFigures(Value):
    """What an evaluation found of one policy version; checkpoints keep that of the policy before training."""

    step: int
    """Optimizer steps trained so far."""
    results: Mapping[str, EvalResult]
    """Evaluator name to result; what the engine measures of the students' completions is there as well."""
    routes: Mapping[str, str] = field(default_factory=FrozenDict)
    """The id of each held-out row to the label of its route."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "results", "routes")


@dataclass(frozen=True, slots=True)
class Evaluated(Value):
    """An evaluation of one policy version is complete."""

    stage: EvalStage
    step: int
    """Optimizer steps trained so far."""
    results: Mapping[str, EvalResult]
    """Evaluator name to result; what the engine measures of the student's completions is there as well."""
    examples: tuple[ScoredRollout, ...] = ()
    """Some completions of each route, to look at."""
    before: Mapping[str, EvalResult] = field(default_factory=FrozenDict)
    """The results of the evaluation before training; empty at that one, and where there was none."""
    measures: Mapping[str, Measure] = field(default_factory=FrozenDict)
    """What people read: metric name to what it is called."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        object.__setattr__(self, "examples", tuple(self.examples))
        freeze_fields(self, "results", "before", "measures")


@dataclass(frozen=True, slots=True)
class Notice(Value):
    """Something that the user should know; it is in `run.log` too, at level INFO or WARNING."""

    message: str
    """A sentence; secrets that stand in the environment are taken out."""
    kind: NoticeKind = "note"
    """`note`: what was set so, or goes as it should; `warning`: what is likely wrong, or did not work."""

    @property
    def shown(self) -> str:
        """The line that people read, which begins with its kind."""
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True, slots=True)
class RunFinished(Value):
    """The run is over, well or not."""

    summary: Mapping[str, object]
    """The content of `summary.json`."""
    error: str | None = None
    """What ended the run before its time, on one line; None where it completed."""
    verdict: str = ""
    """What it came to, in words: the last lines of the run."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "summary")


Event = RunStarted | PhaseStarted | PhaseProgress | StepFinished | Evaluated | Notice | RunFinished
