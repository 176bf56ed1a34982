from collections.abc import Callable
from copy import deepcopy
from typing import ClassVar

import pytest
from conftest import question
from pydantic import PrivateAttr

from distillkit import RunConfig, run
from distillkit.events import Evaluated, Event, RunFinished, RunStarted, StepFinished
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
