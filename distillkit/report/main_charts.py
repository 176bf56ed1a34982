"""The few charts of a run that say most: in a notebook, and as a figure."""

from collections.abc import Sequence

from distillkit.report.charts import Chart, charts_of
from distillkit.report.run_record import RunRecord

MAIN = ("gap", "length", "truncated", "entropy")
"""Ids, in the order in which they are shown."""


def main_charts(run: RunRecord) -> Sequence[Chart]:
    """Those that the run has."""
    found = {chart.spec.id: chart for charts in charts_of([run]).values() for chart in charts}
    return [found[id_] for id_ in MAIN if id_ in found]
