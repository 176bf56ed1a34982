from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar

import pytest
from pydantic import Field

from distillkit import Route, Router, Row, RunConfig, Teacher
from distillkit.data.row_pipeline import RowPipeline
from distillkit.errors import RowError
from distillkit.testing import make_row


class Weighing(Router):
    """Gives the teachers the weights that it is told."""

    name: ClassVar[str] = "weighing"
    weights: Mapping[str, Annotated[float, Field(allow_inf_nan=True)]]

    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        return Route(self.weights)


def pipeline(make: Callable[..., RunConfig], weights: Mapping[str, float]) -> RowPipeline:
    teachers = [{"model": name, "scorer": {"name": "fake"}} for name in weights]
    return RowPipeline.of(make(teachers=teachers, router=Weighing(weights=weights)))


@pytest.mark.parametrize(
    "weights", [{"a": -1.0, "b": 2.0}, {"a": 0.0, "b": 0.0}, {"a": float("nan"), "b": 1.0}, {"a": float("inf")}]
)
def test_weights_that_make_no_mixture_are_refused(
    fake_config: Callable[..., RunConfig], weights: dict[str, float]
) -> None:
    """With -1 and 2, the second teacher's probabilities would count twice."""
    with pytest.raises(RowError, match=r"router 'weighing' returned the weights .*; they are finite, at least 0"):
        pipeline(fake_config, weights).chat(make_row())


def test_a_teacher_of_weight_zero_may_be_on_a_route(fake_config: Callable[..., RunConfig]) -> None:
    route, _ = pipeline(fake_config, {"a": 0.0, "b": 3.0}).chat(make_row())
    assert dict(route.weights) == {"a": 0.0, "b": 3.0}
