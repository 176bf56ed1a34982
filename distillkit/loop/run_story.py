"""A run's events as lines of `run.log`: what happened, in the order in which it did."""

from collections.abc import Iterator, Mapping

from distillkit.data.counted import counted
from distillkit.events import Evaluated, Event, RunFinished, RunStarted, StepFinished

SHOWN = {
    "train/reverse_kl": "reverse KL",
    "train/loss": "loss",
    "train/grad_norm": "gradient norm",
    "train/learning_rate": "learning rate",
    "train/active_tokens": "tokens",
    "completions/mean_length": "mean length",
    "completions/failed": "failed",
}
"""Of a step's metrics those that its line has; all of them are in `metrics.jsonl`."""
TIMES = ("sample", "score", "train", "sync")


def story_line(event: Event) -> str | None:
    """The line of an event; None for one that has none, as progress within a step, or a notice, which is logged."""
    match event:
        case RunStarted():
            plan = event.plan
            rest = f"{counted(plan.rows, 'row')}, {counted(plan.completions, 'completion')}"
            return f"everything is loaded; step {event.first_step} of {plan.steps} comes next, {rest} in all"
        case StepFinished():
            return f"step {event.step}: {', '.join(_step(event.metrics))}"
        case Evaluated():
            parts = (
                f"{name} {value:.4g}{_routes(name, result.routes)}"
                for result in event.results.values()
                for name, value in result.metrics.items()
            )
            return f"evaluation {event.stage}, at step {event.step}: {', '.join(parts)}"
        case RunFinished():
            return _end(event)
        case _:
            return None


def _step(metrics: Mapping[str, float]) -> Iterator[str]:
    yield from (f"{label} {metrics[name]:.4g}" for name, label in SHOWN.items() if name in metrics)
    times = [f"{name} {metrics[f'time/{name}']:.2f}" for name in TIMES if f"time/{name}" in metrics]
    if "time/step" in metrics:
        yield f"{metrics['time/step']:.2f} s ({', '.join(times)})"


def _routes(name: str, routes: Mapping[str, Mapping[str, float]]) -> str:
    found = [f"{route} {values[name]:.4g}" for route, values in routes.items() if name in values]
    return f" ({', '.join(found)})" if len(found) > 1 else ""


def _end(event: RunFinished) -> str:
    summary = event.summary
    line = f"the run is over: {summary.get('status')} after step {summary.get('steps')}, {summary.get('wall_s')} s"
    exported = summary.get("adapter_path")
    return f"{line}{f', weights in {exported}' if exported else ''}{f'; {event.error}' if event.error else ''}"
