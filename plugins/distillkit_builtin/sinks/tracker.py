"""What sinks for experiment trackers share: a run's events as figures, texts and a table, and how a run is found again.

A tracker gets the metrics under the names and at the steps of `metrics.jsonl`; what is not a finite number, which is
null there, is left out. Config and summary have no secrets in them.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

from pydantic import Field, JsonValue, PrivateAttr

from distillkit import (
    Evaluated,
    Event,
    RunContext,
    RunFinished,
    RunStarted,
    ScoredRollout,
    Sink,
    StepFinished,
    Teacher,
    eval_metrics,
    redact,
    replacing,
    reverse_kl,
    route_shown,
)

COLUMNS = ("route", "prompt", "completion", "gap")
"""Of a table of samples."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A completion of a held-out row, for people."""

    route: str
    prompt: str
    """The last message of the row."""
    completion: str
    gap: float | None
    """Mean of `sampling_logprob - teacher_logprob` over its active tokens; None where there are none."""

    @property
    def cells(self) -> tuple[str, str, str, float | None]:
        """In the order of `COLUMNS`."""
        return self.route, self.prompt, self.completion, self.gap


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    status: str
    """`completed`, `failed` or `interrupted`."""
    verdict: str
    """What it came to, a sentence a line; empty where that is not known."""
    summary: dict[str, JsonValue]
    """The content of `summary.json`."""
    weights: Path | None
    """What was exported, if it is there."""
    step: int


class Tracker(Sink):
    """A sink that keeps runs elsewhere, for people to compare."""

    log_samples: bool = Field(
        True, description="Keep some completions of each evaluation, with prompt, route and gap to the teacher."
    )

    _teachers: tuple[Teacher, ...] = PrivateAttr(())
    _step: int = PrivateAttr(0)

    @abstractmethod
    def begin(self, config: dict[str, JsonValue], first_step: int) -> None:
        """Take the resolved config; `first_step` is the next to be trained, of a run that goes on not 1."""

    @abstractmethod
    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take metrics of a step, those of its evaluation apart."""

    @abstractmethod
    def show(self, samples: Sequence[Sample], step: int) -> None:
        """Take completions of the evaluation at a step."""

    @abstractmethod
    def end(self, ending: Ending) -> None:
        """Take what the run came to."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether there is a run to write to."""

    def emit(self, event: Event) -> None:
        """Pass on what is to be kept."""
        if not self.is_open:
            return
        match event:
            case RunStarted():
                self._teachers = event.teachers
                self.begin(without_secrets(event.config), event.first_step)
            case StepFinished():
                self._step = event.step
                self.log(known(event.metrics), event.step)
            case Evaluated():
                self._step = event.step
                self.log(known(eval_metrics(event.results, self._teachers)), event.step)
                if self.log_samples and event.examples:
                    self.show([_sample(each, self._teachers) for each in event.examples], event.step)
            case RunFinished():
                self.end(_ending(event, self._step))


class UploadsWeights(Tracker):
    """A tracker that keeps files too."""

    upload_weights: bool = Field(
        False, description="Keep the exported adapter or model of a completed run there, as an artifact."
    )


def known(metrics: Mapping[str, float]) -> dict[str, float]:
    """The finite ones, as plain numbers."""
    return {name: float(value) for name, value in metrics.items() if isfinite(value)}


def without_secrets(values: Mapping[str, object]) -> dict[str, JsonValue]:
    """A copy as JSON, in which the secrets of the environment are redacted."""
    plain = json.loads(json.dumps(values, default=str))
    return {redact(name): _redacted(value) for name, value in plain.items()}


def _redacted(value: JsonValue) -> JsonValue:
    """Text by text: one secret may have characters that JSON writes otherwise."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_redacted(each) for each in value]
    return {redact(name): _redacted(each) for name, each in value.items()} if isinstance(value, dict) else value


def flattened(values: Mapping[str, JsonValue], above: str = "") -> dict[str, JsonValue]:
    """Inner mappings as names with dots; lists as they are."""
    flat: dict[str, JsonValue] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat


def missing_package(sink: str, package: str) -> str | None:
    """One line that says what to install, or None. A folder of that name, such as of earlier runs, is no package."""
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        return None
    return f"sink {sink!r} needs {package}: pip install 'distillkit[{sink}]'"


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A file in the run's directory that says which run of a tracker this one is, for a resume."""

    path: Path | None
    """None: nothing is kept."""

    @classmethod
    def of(cls, run: RunContext, name: str) -> "KeptRun":
        """The file `name` of a run."""
        return cls(None if run.run_dir is None else run.run_dir / name)

    def read(self) -> dict[str, str]:
        """What it says; nothing where the run has not begun there."""
        if self.path is None or not self.path.is_file():
            return {}
        return {name: str(value) for name, value in json.loads(self.path.read_text(encoding="utf-8")).items()}

    def write(self, **values: str) -> None:
        """Keep this from now on."""
        if self.path is not None:
            with replacing(self.path) as new:  # a kill in between must not leave half of it, which no resume could read
                new.write_text(json.dumps(values) + "\n", encoding="utf-8")


@dataclass(slots=True)
class OnlyOnce:
    """Of a tracker that replaces nothing: what it has already, which a resumed run would log a second time."""

    steps: dict[bool, int]
    """The last step with metrics of an evaluation (True), and of training (False)."""
    left_out: set[int]

    @classmethod
    def after(cls, logged: Mapping[int, Sequence[str]]) -> "OnlyOnce":
        """Of the names that it has at each step."""
        last = {False: -1, True: -1}
        for step, names in logged.items():
            for name in names:
                last[is_evaluation(name)] = max(last[is_evaluation(name)], step)
        return cls(last, set())

    def new(self, metrics: dict[str, float], step: int) -> dict[str, float]:
        """What is new of a step's metrics."""
        found = {name: value for name, value in metrics.items() if step > self.steps[is_evaluation(name)]}
        if len(found) < len(metrics):
            self.left_out.add(step)
        return found

    def notice(self, tracker: str) -> str | None:
        """What was left out, for the user, if anything was."""
        if not self.left_out:
            return None
        first, last = min(self.left_out), max(self.left_out)
        steps = f"step {first}, which was" if first == last else f"steps {first} to {last}, which were"
        return (
            f"{tracker} keeps what it had of {steps} trained again: it replaces nothing; metrics.jsonl has both right"
        )


def is_evaluation(name: str) -> bool:
    """Whether a metric is one of an evaluation."""
    return name.startswith(("eval/", "eval_route/"))


def _sample(scored: ScoredRollout, teachers: Sequence[Teacher]) -> Sample:
    route = route_shown(scored.prompts.route.label, teachers)
    gap = reverse_kl([scored]).get("reverse_kl")
    return Sample(route, scored.prompts.row.messages[-1].content, scored.rollout.text, gap)


def _ending(event: RunFinished, step: int) -> Ending:
    summary = without_secrets(event.summary)
    weights = summary.get("adapter_path")
    path = Path(str(weights)) if weights else None
    there = path if path is not None and path.exists() else None
    return Ending(str(summary.get("status", "failed")), event.verdict, summary, there, step)
