"""Held-out rows before and after by route, and what training did by route."""

from distillkit.events import Measure
from distillkit.loop.route_headroom import STEPS
from distillkit.report.charts import Chart, charts_of
from distillkit.report.html_templates import rendered
from distillkit.report.main_charts import main_charts
from distillkit.report.route_results import RouteResults, route_results
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection
from distillkit.report.training_routes import trained_routes

COMPARED = ("Learning", "Completions", "Policy", "Speed")
"""Groups of charts whose newest values stand side by side."""
SHARE = Measure("share", unit="share")


def results_section(runs: tuple[RunRecord, ...]) -> ReportSection | None:
    """The tables; None where nothing was measured."""
    results, trained = [route_results(run) for run in runs], [trained_routes(run) for run in runs]
    if not any(results) and not any(trained):
        return None
    several = len(runs) > 1
    newest = newest_values(runs) if several else []
    read_first = {(_title(chart), chart.spec.label) for run in runs for chart in main_charts(run)}
    html = rendered(
        "results.html",
        runs=[run.name for run in runs],
        several=several,
        beside=any(row.teacher or row.control for each in results for route in each for row in route.results),
        tables=list(zip([run.name for run in runs], results, trained, strict=True)),
        compared=side_by_side(results) if several else [],
        newest=[row for row in newest if row[:2] in read_first],
        more=[row for row in newest if row[:2] not in read_first],
        number=Measure("").text,
        share=SHARE.text,
    )
    return ReportSection("results", "Results by route", html)


def side_by_side(results: list[tuple[RouteResults, ...]]) -> list[tuple[str, str, list[str]]]:
    """Route, measure, and `before → after` of each run; empty where a run lacks it."""
    found: dict[tuple[str, str], list[str]] = {}
    for place, run in enumerate(results):
        for route in run:
            for row in route.results:
                cells = found.setdefault((route.shown, row.label), [""] * len(results))
                cells[place] = f"{row.before} → {row.after}" if row.after else row.before
    return [(route, label, cells) for (route, label), cells in found.items()]


def _title(chart: Chart) -> str:
    return ", ".join(part for part in (chart.spec.title, chart.spec.unit) if part)


def newest_values(runs: tuple[RunRecord, ...]) -> list[tuple[str, str, list[str]]]:
    """Chart, curve, and the mean of the newest values in each run; empty where a run lacks it."""
    groups = charts_of(runs)
    found: dict[tuple[str, str], list[str]] = {}
    for chart in (chart for heading in COMPARED for chart in groups.get(heading, ())):
        title = _title(chart)
        for curve in chart.curves:
            values = [value for _, value in curve.points[-STEPS:]]
            cells = found.setdefault((title, curve.label), [""] * len(runs))
            cells[curve.run] = chart.text(sum(values) / len(values))
    return [(title, label, cells) for (title, label), cells in found.items()]
