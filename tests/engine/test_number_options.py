"""Which options take true and false, and which are numbers."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from distillkit.roles.number_options import NumberOptions


class Group(BaseModel):
    """Somebody's own group of options, which does not look itself."""

    low: float = 0.0


class Options(NumberOptions):
    count: int = 1
    share: Annotated[float, Field(ge=0)] | None = None
    switch: bool = False
    either: int | bool = 1
    unless: float | Literal[False] = False
    many: tuple[int, ...] = ()
    group: Group = Group()
    groups: tuple[Group, ...] = ()


@pytest.mark.parametrize(
    "given",
    [{"switch": True}, {"either": True}, {"unless": False}, {"unless": 0.5}, {"many": [1, 0]}, {"group": {"low": 1}}],
)
def test_a_switch_stays_where_one_is_allowed(given: dict[str, Any]) -> None:
    (name,) = given
    kept = getattr(Options(**given), name)
    expected = Group(low=1.0) if name == "group" else tuple(given[name]) if name == "many" else given[name]
    assert kept == expected
    assert type(kept) is type(expected)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"count": True}, ""),
        ({"share": False}, ""),
        ({"many": [1, True]}, "1: "),
        ({"group": {"low": True}}, "low: "),
        ({"groups": [{"low": 1}, {"low": False}]}, "1.low: "),
    ],
)
def test_a_switch_in_the_place_of_a_number_is_refused_with_its_place(given: dict[str, Any], path: str) -> None:
    with pytest.raises(ValidationError, match=f"Value error, {path}input should be a number, not (true|false)"):
        Options(**given)
