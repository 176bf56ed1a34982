"""The difference of a measure before and after, and how far off it may be.

The same held-out rows are measured both times, so rows are compared with themselves. A measure is a ratio of sums
over rows, R = sum_i t_i / sum_i n_i (summed gaps by tokens; right answers by answers). With C rows, before 0, after 1:

    SE^2 = C / (C - 1) * sum_i (e_1i - e_0i)^2,    e_ki = (t_ki - R_k n_ki) / sum_i n_ki

the linearized variance of a difference of two ratios by paired rows, robust to any dependence within a row (Cameron
and Miller, A Practitioner's Guide to Cluster-Robust Inference, 2015; Miller, Adding Error Bars to Evals, 2024, for
pairing). Where each row counts once it is the standard error of a mean of paired differences.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from distillkit.events import Measure, RowValue
from distillkit.verdict.run_verdict import Change, Outcome

STANDARD_ERRORS = 2.0
"""A difference of more is told apart from none."""
LEAST_ROWS = 6
"""Of fewer, nothing is told: that all of five change the same way is chance once in sixteen times (2 / 2^5)."""
OF_EACH_ROUTE = 2 * LEAST_ROWS
"""To be held out for each of several routes, since chance gives some of them fewer."""
ByRow = Mapping[str, RowValue]


def rows_to_hold_out(rows: int, routes: int, wished: int) -> int:
    """How many of `rows` to hold out: `wished`, or what a verdict takes; 0 where that is more than half of them."""
    found = max(wished, LEAST_ROWS if routes < 2 else OF_EACH_ROUTE * routes)
    return found if 2 * found <= rows else 0


def paired_change(metric: str, measure: Measure, before: ByRow, after: ByRow) -> Change | None:
    """How a metric changed over the rows that were measured both times; None where there are none."""
    rows = [row for row in before if row in after and (before[row].count or after[row].count)]
    totals = np.array([(before[row].total, after[row].total) for row in rows], np.float64).reshape(-1, 2)
    counts = np.array([(before[row].count, after[row].count) for row in rows], np.float64).reshape(-1, 2)
    sums = counts.sum(axis=0)
    if not rows or not sums.all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # the verdict leaves out what is no finite number
        means = totals.sum(axis=0) / sums
        residuals = np.diff((totals - means * counts) / sums, axis=1)[:, 0]
    error = math.sqrt(len(rows) / (len(rows) - 1) * float(residuals @ residuals)) if len(rows) > 1 else None
    return change_of(metric, measure, float(means[0]), float(means[1]), error, len(rows))


def unpaired_change(metric: str, measure: Measure, before: Sequence[float], after: Sequence[float]) -> Change:
    """How the mean of a metric changed between steps, which are of other rows each."""
    first, last = np.array(before, np.float64), np.array(after, np.float64)
    known = min(len(first), len(last)) > 1
    error = math.sqrt(first.var(ddof=1) / len(first) + last.var(ddof=1) / len(last)) if known else None
    return change_of(metric, measure, float(first.mean()), float(last.mean()), error, len(last))


def change_of(
    metric: str, measure: Measure, before: float, after: float, error: float | None, rows: int | None
) -> Change:
    """The change with its outcome."""
    known = error if error is not None and math.isfinite(error) else None
    few = rows is None or rows < LEAST_ROWS
    outcome = _outcome(after - before, None if few else known, measure)
    return Change(metric, measure.label, measure.unit, before, after, known, rows, outcome)


def _outcome(difference: float, error: float | None, measure: Measure) -> Outcome:
    if difference == 0:
        return "same"
    if error is None:
        return "unknown"
    if abs(difference) <= STANDARD_ERRORS * error:
        return "unclear"
    if measure.better is None:
        return "changed"
    return "better" if (difference > 0) == (measure.better == "higher") else "worse"
