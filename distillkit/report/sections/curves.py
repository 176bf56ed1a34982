"""Curves by step: every metric that a run has, of several runs one over the other."""

from distillkit.report.chart_specs import HELD_OUT, OTHER
from distillkit.report.charts import Chart, charts_data, charts_of
from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection

SAID_BY_THE_TABLE = 2
"""Evaluations of which the table of results says all: curves of no more points are folded."""


def curves_section(runs: tuple[RunRecord, ...]) -> ReportSection | None:
    """The charts; None where no step was trained and nothing evaluated."""
    groups, names = charts_of(runs), [run.name for run in runs]
    if not groups:
        return None
    html = rendered("curves.html", groups=groups, names=names, closed=_closed(groups))
    data = charts_data(groups, names)
    styles, scripts = ("uPlot.min.css",), ("uPlot.iife.min.js", "charts.js")
    return ReportSection("curves", "Curves", html, data, styles, scripts)


def _closed(groups: dict[str, list[Chart]]) -> list[str]:
    """The headings of groups that are opened by who looks for them."""
    evaluated = (curve for chart in groups.get(HELD_OUT, ()) for curve in chart.curves)
    few = all(len(curve.points) <= SAID_BY_THE_TABLE for curve in evaluated)
    return [OTHER, HELD_OUT] if few else [OTHER]
