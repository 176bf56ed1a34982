"""`distillkit eval`: what the evaluators found, as a table of a line a measure and route, by names for people."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distillkit.data.counted import counted
from distillkit.files.redaction import redact
from distillkit.metrics import route_order, route_shown
from distillkit.probe.evaluate_once import EvaluatedWeights
from distillkit.types import Teacher

ALL = ""
"""Stands for all rows among labels of routes."""


def show_evaluation(
    found: EvaluatedWeights, before: Mapping[str, JsonValue] | None, teachers: Sequence[Teacher], console: Console
) -> None:
    """Print a table that fits into 80 columns; beside the values those from before training, where they are known."""
    when = f"after step {found.step}" if found.step else "as the student starts"
    console.print(f"{counted(found.rows, 'held-out row')}, {when}")
    table = Table(box=None, pad_edge=False)
    values = list(_values(found, teachers))
    routed = any(route != ALL for _, route, _ in values)
    for title in ("", *(["route"] if routed else [])):
        table.add_column(title)
    for title in ("before", "now") if before else ("now",):
        table.add_column(title, justify="right")
    for metric, route, now in values:
        measure, then = found.measures[metric], None if before is None else _before(before, metric, route)
        if measure.unit == "count" and not now and not then:
            continue
        like = max((now, *([] if then is None else [then])), key=abs)
        cells = [measure.label, *([route_shown(route, teachers) if route != ALL else "all"] if routed else [])]
        cells += ["" if then is None else measure.text(then, like=like)] if before else []
        table.add_row(*(Text(redact(cell)) for cell in (*cells, measure.text(now, like=like))))
    console.print(table)


def _values(found: EvaluatedWeights, teachers: Sequence[Teacher]) -> Iterator[tuple[str, str, float]]:
    """Each measure over all rows, and by route where there are several."""
    for metric in found.measures:
        for result in found.results.values():
            routes = result.routes if len(result.routes) > 1 or metric not in result.metrics else {}
            if metric in result.metrics:
                yield metric, ALL, result.metrics[metric]
            order = route_order(routes, teachers)
            yield from ((metric, route, routes[route][metric]) for route in order if metric in routes[route])


def _before(before: Mapping[str, JsonValue], metric: str, route: str) -> float | None:
    routes = before.get("routes")
    values = before if route == ALL else routes.get(route) if isinstance(routes, Mapping) else None
    value = values.get(metric) if isinstance(values, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
