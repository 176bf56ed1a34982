from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field, field_validator
from typer.testing import CliRunner

from distillkit import Registry, Sink
from distillkit.cli.main import app
from distillkit.cli.plugin_example import example_of
from distillkit.config.parse import PARSERS
from distillkit.roles.plugin import Plugin

ALL = [(info.role, info.name) for info in Registry.discover().infos() if info.distribution == "distillkit"]


def options_in(role: str, tree: Any) -> Any:
    """The options of the plugin that an example chooses."""
    match role:
        case "dataset":
            return tree["data"]["source"]
        case "prompt_builder":
            return tree["prompts"]
        case "sampler":
            return tree["student"]["sampler"]
        case "scorer":
            return tree["teachers"][0]["scorer"]
        case "weighting":
            return tree["train"]["weightings"][0]
        case "evaluator" | "sink":
            return tree[f"{role}s"][0]
    return tree[role]


@pytest.mark.parametrize(("role", "name"), ALL)
def test_the_example_of_every_plugin_parses_and_holds_what_it_must_be_given(role: str, name: str) -> None:
    registry = Registry.discover()
    cls = registry.find(role, name)
    shown = CliRunner().invoke(app, ["plugins", "show", role, name]).stdout
    _, _, example = shown.partition("\nIn a config:\n\n")
    options = options_in(role, PARSERS[".yaml"](example))
    plugin = registry.build(role, options)
    assert isinstance(plugin, cls)
    required = {key for key, field in cls.model_fields.items() if field.is_required()}
    assert required <= options.keys()
    defaults = {key: getattr(plugin, key) for key in options.keys() - required - {"name"}}
    assert defaults == {key: cls.model_fields[key].get_default(call_default_factory=True) for key in defaults}


class Choosy(Sink):
    """Takes values of every type."""

    name: ClassVar[str] = "choosy"

    level: Literal["low", "high"] = Field(description="How much.")
    count: int = Field(description="How many.")
    keep: bool = Field(description="Whether.")
    words: list[str] = Field(description="Which.")
    scale: dict[str, float] | None = Field(description="By name.")
    note: str | None = Field(None, description="Nothing to show.")
    even: int = Field(examples=[4], description="An even number.")

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("is odd")
        return value

    def emit(self, event: object) -> None:
        """Nothing."""


class Unguessable(Choosy):
    """Nothing can be made up for it."""

    name: ClassVar[str] = "unguessable"

    even: int = Field(description="An even number.")


def test_values_are_made_up_by_type_or_are_the_authors_examples() -> None:
    example = example_of(Choosy, Registry.discover())
    assert example is not None
    (options,) = PARSERS[".yaml"](example)["sinks"]
    made = {"level": "low", "count": 1, "keep": True, "words": ["..."], "scale": {"name": 1.0}, "even": 4}
    assert options == {"name": "choosy", **made}


def test_what_the_plugin_would_refuse_is_not_shown() -> None:
    assert example_of(Unguessable, Registry.discover()) is None
    assert issubclass(Unguessable, Plugin)
