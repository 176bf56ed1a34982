"""What stands in a type may be an alias, as Python 3.12's `type` statement makes it, and numpy 2.5 its `NDArray`."""

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import numpy as np
import pytest
import typing_extensions
from pydantic import BaseModel, Field, JsonValue, ValidationError, create_model

from distillkit.cli.plugin_example import made_up
from distillkit.cli.plugin_pages import options_of, type_name
from distillkit.config.option_problems import models_in
from distillkit.roles.number_options import NumberOptions
from distillkit.roles.type_aliases import unaliased
from distillkit.run_directory.codec import from_json, to_json
from engine.run_directory.same_fields import assert_same

A, B = TypeVar("A"), TypeVar("B")
KINDS = [typing_extensions.TypeAliasType, *([typing.TypeAliasType] if hasattr(typing, "TypeAliasType") else [])]
Alias = Callable[..., Any]
"""Makes one: of its name, what it stands for, and its `type_params`."""


@pytest.fixture(params=KINDS, ids=[kind.__module__ for kind in KINDS])
def alias(request: pytest.FixtureRequest) -> Alias:
    return request.param


class Group(BaseModel):
    size: int = 3


def test_parameters_are_filled_in_by_name_through_aliases_of_aliases(alias: Alias) -> None:
    swapped = alias("Swapped", dict[B, A], type_params=(A, B))
    assert unaliased(swapped[int, str]) == dict[str, int]
    assert unaliased(alias("Named", swapped[A, str], type_params=(A,))[int]) == dict[str, int]
    assert unaliased(alias("Itself", A, type_params=(A,))[int]) is int
    several = typing_extensions.TypeVarTuple("several")
    assert unaliased(alias("Row", tuple[*several], type_params=(several,))[int, str]) != tuple[int]
    assert unaliased(alias("Unused", int, type_params=(A,))[str]) is int
    assert unaliased(alias("Array", np.ndarray[Any, np.dtype[A]], type_params=(A,))) == np.ndarray[Any, np.dtype[A]]


def test_what_is_no_alias_stays_as_it_is() -> None:
    for annotation in (int, None, list[int], int | None, Annotated[int, Field(gt=0)], JsonValue, Group):
        assert unaliased(annotation) is annotation


def test_a_field_comes_back_whose_type_is_an_alias(alias: Alias) -> None:
    array = alias("Array", np.ndarray[Any, np.dtype[A]], type_params=(A,))
    names = alias("Names", Mapping[str, A], type_params=(A,))
    fields: dict[str, tuple[Any, Any]] = {
        "numbers": (array[np.float32], np.array([[0.1, np.nan]], np.float32)),
        "perhaps": (array[np.int64] | None, np.array([3])),
        "bare": (array, np.array([True])),
        "by_name": (names[array[Any]], {"a": np.array([1, 2], np.int16)}),
        "rate": (alias("Rate", Annotated[float, "between 0 and 1"]), np.inf),
        "pair": (alias("Pair", tuple[A, ...], type_params=(A,))[int], (1, 2)),
        "none": (alias("Perhaps", int | None), None),
        "json": (JsonValue, {"a": [1, None]}),
    }
    kept = dataclasses.make_dataclass("Kept", [(name, kind) for name, (kind, _) in fields.items()])
    value = kept(**{name: value for name, (_, value) in fields.items()})
    assert_same(from_json(kept, json.loads(json.dumps(to_json(value), allow_nan=False))), value)


def test_a_switch_is_no_number_behind_an_alias_either(alias: Alias) -> None:
    rate = alias("Rate", Annotated[float, Field(ge=0)])
    rates = alias("Rates", tuple[A, ...], type_params=(A,))
    options = create_model("Options", __base__=NumberOptions, rate=(rate | None, None), rates=(rates[rate], ()))
    assert options(rate=1, rates=[0, 1]).rates == (0, 1)
    for given in ({"rate": True}, {"rates": [1, False]}):
        with pytest.raises(ValidationError, match=r"should be a number, not (true|false)"):
            options(**given)


def test_options_are_shown_as_what_their_aliases_stand_for(alias: Alias) -> None:
    group, words = alias("Sizes", Group), alias("Words", list[A], type_params=(A,))
    sizes: Any = (group, Group())
    model = create_model("Options", sizes=sizes, maybe=(alias("Maybe", group | None), None), words=(words[str], ...))
    assert [name for name, _ in options_of(model)] == ["sizes.size", "maybe", "maybe.size", "words"]
    described = create_model(
        "Options", sizes=(alias("Described", Annotated[group, Field(description="how many")]), Group())
    )
    assert [name for name, _ in options_of(described)] == ["sizes.size"]
    assert type_name(words[str] | None) == "list of str | null"
    assert made_up(model.model_fields["words"]) == ["..."]
    assert list(models_in(dict[str, alias("Maybe", group | None)])) == [Group]


@pytest.mark.skipif(not hasattr(typing, "TypeAliasType"), reason="before Python 3.12 no alias can contain itself")
def test_an_alias_that_contains_itself_is_gone_through_once() -> None:
    made: dict[str, Any] = {"Group": Group}
    exec("type Tree = list[Tree] | Group", made)
    field = create_model("Options", tree=(made["Tree"], ...)).model_fields["tree"]
    assert list(models_in(made["Tree"])) == [Group]
    assert type_name(made["Tree"]) == "list of Tree | Group"
    assert made_up(field) == ["..."]
