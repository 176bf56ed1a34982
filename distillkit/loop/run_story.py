"""A run's events as lines of `run.log`: what happened, in the order in which it did, in people's names."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from distillkit.data.counted import counted
from distillkit.events import Evaluated, Event, Measure, RunFinished, RunStarted, StepFinished
from distillkit.metrics import route_order, route_shown
from distillkit.run_plan import Plan
from distillkit.significant import significant
from distillkit.types import Teacher

SHOWN: Mapping[str, Measure] = {
    "train/reverse_kl": Measure("reverse KL"),
    "train/loss": Measure("loss"),
    "train/grad_norm": Measure("gradient norm"),
    "train/active_tokens": Measure("tokens", unit="count"),
    "completions/mean_length": Measure("mean length"),
    "completions/failed": Measure("failed", unit="count"),
}
"""Of a step's metrics those that its line has; all of them are in `metrics.jsonl`."""
LEARNING_RATE = "train/learning_rate"
TIMES: Mapping[str, str] = {"sample": "sampling", "score": "scoring", "train": "training", "sync": "publishing"}


class RunStory:
    """The lines of one run: what its later events are told with, the first says."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self._teachers: Sequence[Teacher] = ()

    def line(self, event: Event) -> str | None:
        """The line of an event; None for one that has none, as progress in a step, or a notice, which is logged."""
        match event:
            case RunStarted():
                self._teachers = event.teachers
                return _beginning(event)
            case StepFinished():
                return f"step {event.step}: {', '.join(_step(event.metrics, self._teachers))}"
            case Evaluated():
                return f"evaluation {event.stage} training, at step {event.step}: {'; '.join(self._measured(event))}"
            case RunFinished():
                return _end(event)
            case _:
                return None

    def _measured(self, event: Evaluated) -> Iterator[str]:
        """What people read of the results, each over all rows and by route."""
        for name, measure in event.measures.items():
            for result in event.results.values():
                routes = {label: values[name] for label, values in result.routes.items() if name in values}
                parts = [measure.text(result.metrics[name])] if name in result.metrics else []
                if len(routes) > 1 or not parts:
                    shown = route_order(routes, self._teachers)
                    parts += [f"{route_shown(label, self._teachers)} {measure.text(routes[label])}" for label in shown]
                if parts:
                    yield f"{measure.label} {', '.join(parts)}"


def chosen(config: Mapping[str, object], plan: Plan) -> dict[str, JsonValue]:
    """What most decides how a run goes: how the student is trained, as far as its options say, and how large a step is.

    `config` is the resolved config; `summary.json` has this as `settings`.
    """
    student = config.get("student")
    options = student if isinstance(student, Mapping) else {}
    return {
        **{name: options[name] for name in ("learning_rate", "lora_rank") if name in options},
        "step_rows": plan.step_rows,
        "completions_per_prompt": plan.step_completions // max(plan.step_rows, 1),
        "max_completion_tokens": plan.new_tokens,
    }


def _shown(settings: Mapping[str, JsonValue]) -> str:
    rank, each = settings.get("lora_rank"), settings["completions_per_prompt"]
    parts = [f"learning rate {settings['learning_rate']:g}"] if "learning_rate" in settings else []
    parts += [] if rank is None else [f"LoRA of rank {rank}" if rank else "all weights are trained"]
    batch = f"{settings['step_rows']} rows x {each} completions of at most {settings['max_completion_tokens']} tokens"
    return ", ".join([*parts, f"a step: {batch}"])


def _beginning(event: RunStarted) -> str:
    plan = event.plan
    rest = f"{counted(plan.rows, 'row')}, {counted(plan.completions, 'completion')}"
    settings = _shown(chosen(event.config, plan))
    begins = f"everything is loaded; step {event.first_step} of {plan.steps} comes next, {rest} in all; {settings}"
    return f"{begins}; loss: {event.objective}" if event.objective else begins


def _step(metrics: Mapping[str, float], teachers: Sequence[Teacher]) -> Iterator[str]:
    yield from (f"{measure.label} {measure.text(metrics[name])}" for name, measure in SHOWN.items() if name in metrics)
    if LEARNING_RATE in metrics:
        yield f"learning rate {metrics[LEARNING_RATE]:.3g}"
    gaps = {teacher: metrics.get(f"teacher_route/{teacher.slug}/reverse_kl") for teacher in teachers}
    if len(gaps) > 1:
        yield from (f"{teacher.shown} {significant(gap)}" for teacher, gap in gaps.items() if gap is not None)
    times = [f"{label} {metrics[f'time/{name}']:.2f}" for name, label in TIMES.items() if f"time/{name}" in metrics]
    if "time/step" in metrics:
        yield f"{metrics['time/step']:.2f} s ({', '.join(times)})"


def _end(event: RunFinished) -> str:
    summary = event.summary
    line = f"the run is over: {summary.get('status')} after step {summary.get('steps')}, {summary.get('wall_s')} s"
    exported = summary.get("adapter_path")
    if summary.get("status") == "interrupted":  # whoever stopped it knows, and the error has no words but its name
        return line
    return f"{line}{f', weights in {exported}' if exported else ''}{f'; {event.error}' if event.error else ''}"
