"""Metrics of runs as charts: curves by step, thinned where there are more points than a screen has, and in words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.events import Measure
from distillkit.frozen import Value
from distillkit.report.chart_spec import ChartSpec
from distillkit.report.chart_specs import specs_of
from distillkit.report.route_names import RouteNames, route_names
from distillkit.report.run_record import RunRecord, Step

MOST_POINTS = 2000
"""Of a curve: more are thinned to the smallest and largest of each part."""
CURVES_BYTES = 1_600_000
"""About what all curves of a page may take, so that most of it is left for completions."""
POINT_BYTES = 9
SMALL = 0.01
OF_ROUTES = ("teacher_route/", "eval_route/")
"""How metrics of one route begin; its slug comes next."""
IN_WORDS = 8
"""Curves that a chart's summary names."""
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Curve(Value):
    """One line of a chart."""

    run: int
    """Which run, counted from 0."""
    label: str
    """What it is of: a route, a phase, `all`."""
    points: tuple[tuple[int, float], ...]
    """Step and value, the steps rising."""


@dataclass(frozen=True, slots=True)
class Chart(Value):
    """Curves that share axes."""

    spec: ChartSpec
    curves: tuple[Curve, ...]

    def text(self, value: float) -> str:
        """A value as people read it; small ones, such as learning rates, with three significant figures."""
        if self.spec.kind == "number" and 0 < abs(value) < SMALL:
            return f"{value:.3g}"
        return Measure(self.spec.title, unit=self.spec.kind).text(value)

    def words(self, runs: Sequence[str]) -> list[str]:
        """What each curve does, in a sentence without an end."""
        said = [self._words(curve, runs) for curve in self.curves[:IN_WORDS]]
        more = len(self.curves) - IN_WORDS
        return [*said, f"and {more} more"] if more > 0 else said

    def _words(self, curve: Curve, runs: Sequence[str]) -> str:
        name = ", ".join([*([runs[curve.run]] if len(runs) > 1 else []), curve.label])
        (first, begun), (last, ended) = curve.points[0], curve.points[-1]
        text = self.text
        if len(curve.points) == 1:
            return f"{name}: {text(begun)} at step {first}"
        lowest = min(curve.points, key=lambda point: point[1])
        highest = max(curve.points, key=lambda point: point[1])
        return (
            f"{name}: {text(begun)} at step {first}, {text(ended)} at step {last}; "
            f"lowest {text(lowest[1])} at {lowest[0]}, highest {text(highest[1])} at {highest[0]}"
        )


def charts_of(runs: Sequence[RunRecord]) -> dict[str, list[Chart]]:
    """Heading to charts: of every metric that any of the runs has, and no empty one."""
    columns = [_columns(run.steps) for run in runs]
    names = [route_names(run.config) for run in runs]
    groups = specs_of(name for table in columns for name in table)
    charts = {
        heading: [Chart(spec, curves) for spec in specs if (curves := tuple(_curves(spec, columns, names)))]
        for heading, specs in groups.items()
    }
    return {heading: found for heading, found in charts.items() if found}


def _columns(steps: Sequence[Step]) -> Mapping[str, Points]:
    """The points of each metric; a step that does not say which it is has none."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step in map(_derived, steps):
        at = step.get("step")
        for name, value in step.items():
            points = found.setdefault(name, [])
            if at is not None and value is not None:
                points.append((int(at), value))
    return found


def _derived(step: Step) -> Step:
    """The metrics of a step, and its throughput."""
    tokens, seconds = step.get("train/active_tokens"), step.get("time/step")
    return {**step, "throughput": tokens / seconds} if tokens and seconds else step


def _curves(spec: ChartSpec, columns: Sequence[Mapping[str, Points]], called: Sequence[RouteNames]) -> Iterator[Curve]:
    for run, table in enumerate(columns):
        labels = {name: label for name in table if (label := spec.curve_of(name)) is not None}
        for name, label in labels.items():
            points = tuple(table[name])
            if points and not (spec.kind == "count" and not any(value for _, value in points)):  # nothing happened
                yield Curve(run, called[run].shown_as(label) if name.startswith(OF_ROUTES) else label, points)


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[int, float]]:
    """At most `most` points: the first and the last, and the smallest and the largest of each part of the others."""
    if len(points) <= most:
        return list(points)
    inner, parts = points[1:-1], max(1, (most - 2) // 2)
    kept = []
    for part in range(parts):
        bucket = inner[len(inner) * part // parts : len(inner) * (part + 1) // parts]
        kept += sorted({min(bucket, key=lambda point: point[1]), max(bucket, key=lambda point: point[1])})
    return [points[0], *kept, points[-1]]


def charts_data(groups: dict[str, list[Chart]], runs: Sequence[str]) -> dict[str, JsonValue]:
    """What the page's script draws: charts with curves, whose steps are in `steps`, each list of them once."""
    charts = [chart for found in groups.values() for chart in found]
    count = sum(len(chart.curves) for chart in charts)
    most = max(100, min(MOST_POINTS, CURVES_BYTES // (POINT_BYTES * max(1, count))))
    places: dict[tuple[int, ...], int] = {}
    drawn: list[JsonValue] = []
    for chart in charts:
        curves: list[JsonValue] = []
        for curve in chart.curves:
            points = thinned(curve.points, most)
            at = places.setdefault(tuple(step for step, _ in points), len(places))
            values: list[JsonValue] = [_short(value) for _, value in points]
            whole = len(points) == len(curve.points)
            curves.append({"run": curve.run, "label": curve.label, "x": at, "y": values, "whole": whole})
        spec = chart.spec
        drawn.append({"id": spec.id, "title": spec.title, "unit": spec.unit, "kind": spec.kind, "curves": curves})
    return {"runs": [*runs], "steps": [[*steps] for steps in places], "charts": drawn}


def _short(value: float) -> float:
    """Five significant figures, which is more than a screen shows."""
    return float(f"{value:.5g}") if math.isfinite(value) else value
