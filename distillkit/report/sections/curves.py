"""Curves by step: every metric that a run has, of several runs one over the other."""

from distillkit.report.charts import charts_data, charts_of
from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord
from distillkit.report.section import Section

CLOSED = ("Other metrics",)
"""Groups that are opened by who looks for them."""


def curves_section(runs: tuple[RunRecord, ...]) -> Section | None:
    """The charts; None where no step was trained and nothing evaluated."""
    groups, names = charts_of(runs), [run.name for run in runs]
    if not groups:
        return None
    html = rendered("curves.html", groups=groups, names=names, closed=CLOSED)
    data = charts_data(groups, names)
    styles, scripts = ("uPlot.min.css",), ("uPlot.iife.min.js", "charts.js")
    return Section("curves", "Curves", html, data, styles, scripts)
