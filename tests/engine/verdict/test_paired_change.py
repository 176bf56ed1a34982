import math

import numpy as np
import pytest

from distillkit.events import Measure, RowValue
from distillkit.verdict.paired_change import LEAST_ROWS, paired_change, unpaired_change

LOWER, HIGHER, NEITHER = Measure("gap", "lower"), Measure("right", "higher", "share"), Measure("length")


def by_row(*values: float, counts: list[float] | None = None) -> dict[str, RowValue]:
    each = counts or [1.0] * len(values)
    return {f"row {i}": RowValue(value, count) for i, (value, count) in enumerate(zip(values, each, strict=True))}


def test_where_each_row_counts_once_it_is_the_error_of_a_mean_of_paired_differences() -> None:
    before, after = [1.0, 5.0, 2.0, 8.0, 3.0, 4.0, 9.0], [0.5, 4.9, 1.0, 8.1, 2.0, 3.5, 8.0]
    change = paired_change("m", LOWER, by_row(*before), by_row(*after))
    assert change is not None
    differences = np.array(after) - np.array(before)
    assert [change.before, change.after] == pytest.approx([np.mean(before), np.mean(after)])
    assert change.difference == pytest.approx(differences.mean())
    assert change.standard_error == pytest.approx(differences.std(ddof=1) / math.sqrt(7))
    assert (change.rows, change.outcome) == (7, "better")


def test_a_ratio_of_sums_is_as_far_off_as_resampling_its_rows_says() -> None:
    """The bootstrap's standard error over rows, of the difference of two ratios, is within a tenth of the formula's."""
    chance = np.random.default_rng(3)
    counts = chance.integers(5, 60, (2, 80)).astype(float)
    level = chance.normal(0.5, 0.2, 80)  # a row that is far before is far after
    totals = counts * (level + chance.normal(0, 0.05, (2, 80)) - [[0.0], [0.1]])
    before, after = (by_row(*totals[k], counts=list(counts[k])) for k in (0, 1))
    change = paired_change("m", LOWER, before, after)
    assert change is not None
    assert change.standard_error is not None
    picks = chance.integers(0, 80, (4000, 80))
    ratios = [totals[k][picks].sum(axis=1) / counts[k][picks].sum(axis=1) for k in (0, 1)]
    assert change.standard_error == pytest.approx((ratios[1] - ratios[0]).std(), rel=0.1)
    unpaired = math.hypot(*(ratio.std() for ratio in ratios))
    assert change.standard_error < 0.7 * unpaired  # what pairing is for


def test_only_rows_that_were_measured_both_times_are_compared() -> None:
    before, after = by_row(*[1.0] * 8), by_row(*[2.0] * 8)
    del after["row 0"], before["row 7"]
    after["row 7"] = RowValue(1000.0)
    change = paired_change("m", NEITHER, before, after)
    assert change is not None
    assert (change.rows, change.before, change.after, change.outcome) == (6, 1.0, 2.0, "changed")
    assert paired_change("m", NEITHER, before, {}) is None
    assert paired_change("m", NEITHER, by_row(0.0, counts=[0.0]), by_row(0.0, counts=[0.0])) is None


def test_of_few_rows_nothing_is_told_though_all_change_the_same_way() -> None:
    for rows, outcome in ((1, "unknown"), (LEAST_ROWS - 1, "unknown"), (LEAST_ROWS, "better")):
        change = paired_change("m", HIGHER, by_row(*[0.0] * rows), by_row(*[1.0] * rows))
        assert change is not None
        assert (change.outcome, change.standard_error) == (outcome, None if rows == 1 else 0.0)


@pytest.mark.parametrize(
    ("measure", "differences", "outcome"),
    [
        (LOWER, [1.0, 1.1] * 4, "worse"),
        (HIGHER, [1.0, 1.1] * 4, "better"),
        (LOWER, [-1.0, -1.1] * 4, "better"),
        (HIGHER, [-1.0, -1.1] * 4, "worse"),
        (NEITHER, [-1.0, -1.1] * 4, "changed"),
        (LOWER, [1.0, -0.9] * 4, "unclear"),
        (LOWER, [0.0] * 8, "same"),
    ],
)
def test_more_than_two_standard_errors_are_told(measure: Measure, differences: list[float], outcome: str) -> None:
    change = paired_change("m", measure, by_row(*[3.0] * 8), by_row(*(3.0 + each for each in differences)))
    assert change is not None
    assert change.outcome == outcome


def test_steps_of_training_are_of_other_rows_and_not_paired() -> None:
    first, newest = [1.0, 2.0, 3.0, 2.0, 1.0, 3.0], [2.0, 1.0, 2.0, 1.0, 2.0, 1.0]
    change = unpaired_change("m", LOWER, first, newest)
    error = math.sqrt(np.var(first, ddof=1) / 6 + np.var(newest, ddof=1) / 6)
    assert (change.before, change.after, change.rows) == (2.0, 1.5, 6)
    assert change.standard_error == pytest.approx(error)
    assert unpaired_change("m", LOWER, [1.0], [2.0]).standard_error is None
