"""`distillkit eval`: what the evaluators found, as a table of a line a metric and route."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from distillkit.data.counted import counted
from distillkit.files.redaction import redact
from distillkit.probe.evaluate_once import Evaluated

ALL = "all"


def show_evaluation(found: Evaluated, before: Mapping[str, JsonValue] | None, console: Console) -> None:
    """Print a table that fits into 80 columns; beside the values those from before training, where they are known."""
    when = f"after step {found.step}" if found.step else "as the student starts"
    console.print(f"{counted(found.rows, 'held-out row')}, {when}")
    table = Table(box=None, pad_edge=False)
    values = list(_values(found))
    routed = any(route != ALL for _, route, _ in values)
    for title in ("metric", *(["route"] if routed else [])):
        table.add_column(title)
    for title in ("before", "now") if before else ("now",):
        table.add_column(title, justify="right")
    for metric, route, value in values:
        cells = [metric, *([route] if routed else []), *([_shown(_before(before, metric, route))] if before else [])]
        table.add_row(*(Text(redact(cell)) for cell in (*cells, _shown(value))))
    console.print(table)


def _values(found: Evaluated) -> Iterator[tuple[str, str, float | None]]:
    """Each metric over all rows, and by route where there are several."""
    for result in found.results.values():
        routes = result.routes if len(result.routes) > 1 or not result.metrics else {}
        for metric in dict.fromkeys([*result.metrics, *(name for values in routes.values() for name in values)]):
            if metric in result.metrics:
                yield metric, ALL, result.metrics[metric]
            yield from ((metric, route, values[metric]) for route, values in routes.items() if metric in values)


def _before(before: Mapping[str, JsonValue], metric: str, route: str) -> float | None:
    routes = before.get("routes")
    values = before if route == ALL else routes.get(route) if isinstance(routes, Mapping) else None
    value = values.get(metric) if isinstance(values, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
