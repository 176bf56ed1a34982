"""What held-out rows said before and after, by route, beside what the teacher itself and the control reach."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distillkit.events import Measure
from distillkit.frozen import Value
from distillkit.report.run_record import RunRecord
from distillkit.verdict.completion_figures import COMPLETION_MEASURES
from distillkit.verdict.run_verdict import Change, RouteVerdict
from distillkit.verdict.verdict_sentences import OUTCOMES

BESIDE = {"pattern_rate": ("teacher_rate", "control_rate"), "trace_nll": ("trace_teacher_nll", "")}
"""A measure to the metrics of its teacher, and of the teacher's model without the teacher's prompt."""
KNOWN: Mapping[str, Measure] = {**COMPLETION_MEASURES, "reverse_kl": Measure("reverse KL, nats a token", "lower")}
"""What people call metrics where no verdict says it, as of a run that goes on."""


@dataclass(frozen=True, slots=True)
class ResultRow(Value):
    """One measure of one route, as text; empty where it was not measured."""

    metric: str
    label: str
    before: str
    after: str
    change: str = ""
    """With its standard error."""
    outcome: str = ""
    """In words; empty where nothing was compared."""
    css: str = ""
    """`better` or `worse`, for the colour."""
    teacher: str = ""
    control: str = ""


@dataclass(frozen=True, slots=True)
class RouteResults(Value):
    """The measures of one route."""

    shown: str
    """How people read it; empty: all rows together."""
    rows: int | None
    """Held-out rows; None where that is not known."""
    results: tuple[ResultRow, ...]


def route_results(run: RunRecord) -> tuple[RouteResults, ...]:
    """Of each route, and of all rows together where there are several routes."""
    verdict = run.verdict
    if verdict is None or verdict.overall is None:
        return tuple(_so_far(run))
    routes = [*verdict.routes, *([verdict.overall] if len(verdict.routes) != 1 else [])]
    return tuple(RouteResults(route.shown, route.rows, tuple(_compared(run, route))) for route in routes)


def _compared(run: RunRecord, route: RouteVerdict) -> Iterator[ResultRow]:
    beside = {name for pair in BESIDE.values() for name in pair}
    for change in route.changes:
        if change.metric in beside:
            continue
        like = max(change.before, change.after, key=abs) if change.unit == "share" else None
        teacher, control = (
            _once(run, route.route, name, change.measure) for name in BESIDE.get(change.metric, ("",) * 2)
        )
        before, after = (change.measure.text(value, like=like) for value in (change.before, change.after))
        outcome, css = OUTCOMES[change.outcome].lower(), change.outcome if change.outcome in ("better", "worse") else ""
        yield ResultRow(change.metric, change.label, before, after, _moved(change), outcome, css, teacher, control)


def _moved(change: Change) -> str:
    if change.outcome == "same":
        return ""
    moved = change.measure.text(change.difference, signed=True)
    if change.standard_error is None:
        return moved
    return f"{moved} ± {change.measure.text(change.standard_error, like=change.difference)}"


def _once(run: RunRecord, route: str, metric: str, measure: Measure) -> str:
    """A figure that was measured once: of the teacher, which does not change."""
    found: Any = run.summary.get("eval")
    for stage in ("after", "before"):
        of_stage = found.get(stage) if isinstance(found, dict) else None
        routes = of_stage.get("routes") if isinstance(of_stage, dict) else None
        mine = routes.get(route) if isinstance(routes, dict) else None
        value = mine.get(metric) if isinstance(mine, dict) and metric else None
        if isinstance(value, int | float):
            return measure.text(value)
    return ""


def _so_far(run: RunRecord) -> Iterator[RouteResults]:
    """The first evaluation and the newest, by the metrics of the steps, where the run has no verdict yet."""
    found: dict[str, list[ResultRow]] = {}
    for name in dict.fromkeys(name for step in run.steps for name in step if name.startswith(("eval/", "eval_route/"))):
        route, _, metric = name.removeprefix("eval_route/").removeprefix("eval/").rpartition("/")
        measure, values = KNOWN.get(metric), run.values(name)
        if measure is None or not values:
            continue
        after = measure.text(values[-1][1]) if len(values) > 1 else ""
        found.setdefault(route, []).append(ResultRow(metric, measure.label, measure.text(values[0][1]), after))
    for route, rows in sorted(found.items(), key=lambda each: (each[0] == "", each[0])):
        yield RouteResults(route, None, tuple(rows))
