import math

import pytest

from distillkit import route_order, significant
from distillkit.testing import make_teacher


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (-0.0001, "0.000"),
        (0.0123, "0.012"),
        (0.4321, "0.432"),
        (0.99961, "1.00"),
        (1.534, "1.53"),
        (-9.996, "-10.0"),
        (12.35, "12.3"),
        (99.96, "100"),
        (1234.5, "1234"),
        (math.nan, "?"),
        (-math.inf, "?"),
    ],
)
def test_three_significant_figures_and_three_decimals_at_most(value: float, text: str) -> None:
    assert significant(value) == text


def test_an_error_has_the_decimals_of_its_difference() -> None:
    assert significant(0.25, like=-14.8) == "0.2"
    assert significant(0.25, signed=True) == "+0.250"


def test_routes_stand_in_the_order_of_the_configs_teachers_and_those_of_several_behind() -> None:
    teachers = [make_teacher("b"), make_teacher("a"), make_teacher("c+d")]
    assert route_order({"a+b", "c+d", "a", "b+a", "b", "gone"}, teachers) == ["b", "a", "c+d", "gone", "b+a", "a+b"]
