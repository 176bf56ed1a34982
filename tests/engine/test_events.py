import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar

import pytest
from conftest import question
from pydantic import PrivateAttr

from distillkit import RunConfig, run
from distillkit.events import Evaluated, Event, Measure, RunFinished, RunStarted, StepFinished
from distillkit.testing import ListSink


class Meddler(ListSink):
    """Tries to change what it is told, before the next sink hears it."""

    name: ClassVar[str] = "meddler"

    _refused: list[str] = PrivateAttr(default_factory=list)

    @property
    def refused(self) -> list[str]:
        return self._refused

    def emit(self, event: Event) -> None:
        mappings = {
            RunStarted: lambda: event.config["data"],  # type: ignore[union-attr]
            StepFinished: lambda: event.metrics,  # type: ignore[union-attr]
            Evaluated: lambda: event.results["reverse_kl"].metrics,  # type: ignore[union-attr]
            RunFinished: lambda: event.summary["eval"],  # type: ignore[union-attr]
        }
        if type(event) in mappings:
            with pytest.raises(TypeError, match="belongs to a frozen value"):
                mappings[type(event)]()["meddled"] = 1.0
            self._refused.append(type(event).__name__)


class Copier(ListSink):
    """Keeps what each event held when it was told."""

    name: ClassVar[str] = "copier"

    _then: list[str] = PrivateAttr(default_factory=list)

    @property
    def then(self) -> list[str]:
        return self._then

    def emit(self, event: Event) -> None:
        super().emit(event)
        self._then.append(repr(deepcopy(event)))


def test_what_sinks_hear_stays_what_it_was(fake_config: Callable[..., RunConfig], jsonl: Callable[..., str]) -> None:
    held_out = jsonl([question("held out")], "eval.jsonl")
    meddler, copier = Meddler(), Copier()
    evaluated = {"eval_every": 1, "sample_every": 1}
    run(fake_config(data={"eval_path": held_out}, sinks=[meddler, copier], train=evaluated))
    assert {"RunStarted", "StepFinished", "Evaluated", "RunFinished"} == set(meddler.refused)
    assert [repr(event) for event in copier.events] == copier.then
    assert "meddled" not in "".join(copier.then)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("number", 0.4321, "0.432"),
        ("number", -0.00001, "0.000"),
        ("number", 12.345, "12.3"),
        ("number", 1234.5, "1234"),
        ("count", 3.0, "3"),
        ("share", 0.125, "12%"),
        ("share", 0.004, "0.4%"),
        ("share", 0.0, "0%"),
        ("share", 1.0, "100%"),
        ("number", math.nan, "?"),
    ],
)
def test_a_measure_is_written_as_people_read_it(unit: Any, value: float, text: str) -> None:
    assert Measure("m", unit=unit).text(value) == text


def test_numbers_beside_each_other_have_their_own_figures_and_shares_as_many_decimals() -> None:
    assert Measure("m").both(21.8, 3.077) == "21.8 -> 3.08"
    assert Measure("m").both(0.5, 110.1) == "0.500 -> 110"
    assert Measure("m", unit="share").both(0.5, 0.004) == "50% -> 0%"
    assert Measure("m").text(0.25, signed=True, like=-14.8) == "+0.2"
