"""A run in a notebook's cell: verdict, the table of held-out rows, small curves, and where the report is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillkit.frozen import Value
from distillkit.report.charts import Chart, Curve, thinned
from distillkit.report.html_templates import rendered
from distillkit.report.main_charts import main_charts
from distillkit.report.read_run import read_run
from distillkit.report.route_results import route_results
from distillkit.report.sections.verdict_section import sentences
from distillkit.run_directory.directory import REPORT

WIDTH, HEIGHT, MARGIN = 220, 56, 3
POINTS = 200
COLOURS = ("currentColor", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which colour-blind people tell apart; the first is the curve over all rows."""


@dataclass(frozen=True, slots=True)
class Sparkline(Value):
    """A small chart as SVG."""

    title: str
    unit: str
    newest: str
    """The newest value over all rows, or of the first curve."""
    lines: tuple[tuple[str, str, str], ...]
    """Label, colour, and the points of a polyline."""


def notebook_html(run_dir: Path) -> str:
    """The run as a notebook shows it; each value is escaped."""
    run = read_run(run_dir)
    report = run_dir / REPORT
    shown = report.as_posix() if report.is_file() else None
    return str(
        rendered(
            "notebook.html",
            run=run,
            sentences=sentences(run),
            results=route_results(run),
            sparklines=[sparkline(chart) for chart in main_charts(run)],
            size=(WIDTH, HEIGHT),
            report=shown,
        )
    )


def sparkline(chart: Chart) -> Sparkline:
    """A chart's curves on one small field, over the whole range of all of them."""
    points = [point for curve in chart.curves for point in curve.points]
    steps, values = [step for step, _ in points], [value for _, value in points]
    box = (min(steps), max(steps), min(0.0, *values), max(values))
    ordered = sorted(chart.curves, key=lambda curve: curve.label == chart.spec.label)  # that of all on top
    colours = _colours(ordered, chart.spec.label)
    lines = tuple((curve.label, colour, _polyline(curve, box)) for curve, colour in zip(ordered, colours, strict=True))
    newest = chart.text(ordered[-1].points[-1][1])
    return Sparkline(chart.spec.title, chart.spec.unit, newest, lines)


def _colours(curves: Sequence[Curve], over_all: str) -> list[str]:
    others = [curve.label for curve in curves if curve.label != over_all]
    return [
        COLOURS[0] if curve.label == over_all else COLOURS[1 + others.index(curve.label) % (len(COLOURS) - 1)]
        for curve in curves
    ]


def _polyline(curve: Curve, box: tuple[int, int, float, float]) -> str:
    first, last, low, high = box
    width, height = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN

    def place(step: int, value: float) -> str:
        x = MARGIN + width * (step - first) / max(1, last - first)
        y = MARGIN + height * (1 - (value - low) / ((high - low) or 1.0))
        return f"{x:.1f},{y:.1f}"

    return " ".join(place(step, value) for step, value in thinned(curve.points, POINTS))
