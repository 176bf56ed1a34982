"""A run's main curves as a figure of matplotlib, which is imported when one is made."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from distillkit.errors import MissingExtraError
from distillkit.report.main_charts import main_charts
from distillkit.report.read_run import read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def run_figure(run_dir: Path) -> "Figure":
    """The main curves below each other. Raises MissingExtraError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("a plot needs matplotlib: pip install 'distillkit[plot]'")
    from matplotlib.figure import Figure

    run = read_run(run_dir)
    charts = main_charts(run)
    figure = Figure(figsize=(7.0, 2.4 * max(1, len(charts))), layout="constrained")
    figure.suptitle(run.name)
    for place, chart in enumerate(charts):
        axes = figure.add_subplot(len(charts), 1, place + 1)
        others = [curve.label for curve in chart.curves if curve.label != chart.spec.label]
        for curve in chart.curves:
            over_all = curve.label == chart.spec.label
            colour = "black" if over_all else COLOURS[others.index(curve.label) % len(COLOURS)]
            axes.plot(*zip(*curve.points, strict=True), label=curve.label, color=colour, linewidth=1.5)
        axes.set_title(chart.spec.title, fontsize=10, loc="left")
        axes.set_ylabel(chart.spec.unit, fontsize=8)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        if len(chart.curves) > 1:
            axes.legend(fontsize=8, frameon=False)
        if place == len(charts) - 1:
            axes.set_xlabel("step")
    return figure
