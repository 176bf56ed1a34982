from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, JsonValue

from distillkit.cli.plugin_pages import default_of, options_of, type_name
from distillkit.roles.router import Router
from distillkit_builtin.routers import FieldRouter


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (str, "str"),
        (str | None, "str | null"),
        (tuple[str, ...], "list of str"),
        (list[int], "list of int"),
        (tuple[Annotated[int, Field(strict=True, ge=0)], ...], "list of int"),
        (tuple[float, float], "[float, float]"),
        (dict[str, JsonValue] | None, "mapping of str to JSON | null"),
        (Literal["a", "b"] | None, '"a" | "b" | null'),
        (tuple[Router, ...], "list of Router"),
    ],
)
def test_types_are_named_as_a_config_writes_them(annotation: Any, name: str) -> None:
    assert type_name(annotation) == name


class Inner(BaseModel):
    size: int = 3


class Outer(BaseModel):
    need: int
    none: int | None = None
    words: tuple[str, ...] = ()
    inner: Inner = Field(default_factory=Inner)
    larger: Inner = Inner(size=4)
    maybe: Inner | None = None
    many: list[Inner] = []
    router: Router = FieldRouter(route_key="k")


def test_the_options_of_a_group_are_named_with_the_group() -> None:
    names = [name for name, _ in options_of(Outer)]
    assert names == ["need", "none", "words", "inner.size", "larger.size", "maybe", "maybe.size", "many", "router"]


def test_defaults_are_written_as_a_config_writes_them() -> None:
    assert {name: default_of(field) for name, field in Outer.model_fields.items()} == {
        "need": "required",
        "none": "null",
        "words": "[]",
        "inner": "{}",
        "larger": '{"size": 4}',
        "maybe": "null",
        "many": "[]",
        "router": '{"name": "field", "route_key": "k"}',
    }
