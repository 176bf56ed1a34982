"""A chat template that writes the date: a run has one, also when it goes on another day."""

import json
import shutil
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from pydantic import PrivateAttr

from distillkit import RunConfig, run
from distillkit.errors import InputError
from distillkit.preflight import prepared_run
from distillkit.records import ScoredRollout
from distillkit.training_data import Batch
from distillkit.types import Message
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

Make = Callable[..., RunConfig]
TODAY = date(2026, 3, 4)
WITH_DATE = "Today is {{ strftime_now('%d %b %Y, %H:%M') }}."


@pytest.fixture
def dated_model(tmp_path: Path, tiny_model: str) -> str:
    """The tiny model with a chat template that begins with the date."""
    folder = tmp_path / "dated"
    shutil.copytree(tiny_model, folder)
    template = HFTokenizer.load(tiny_model).inner.chat_template
    (folder / "chat_template.jinja").write_text(WITH_DATE + str(template))
    return str(folder)


def on(day: date, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the runs to come begin on `day`."""

    class Day(date):
        @classmethod
        def today(cls) -> Self:
            return cls(day.year, day.month, day.day)

    monkeypatch.setattr(prepared_run, "date", Day)


def dated(local_config: Make, model: str) -> dict[str, Any]:
    """The student of `local_config` with this model."""
    return {**local_config().student.model_dump(), "name": "local", "model": model}


class Watching(ImportanceSampling):
    """Keeps the prompts of the completions that it was given."""

    name: ClassVar[str] = "watching"
    _prompts: list[list[int]] = PrivateAttr(default_factory=list)

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        self._prompts += [each.prompts.student.tolist() for each in scored]
        return super().batch(scored)

    def dates(self, model: str) -> set[str]:
        """What stands in front of the prompts' first turn."""
        tokenizer = HFTokenizer.load(model)
        return {tokenizer.show(ids).partition("<|")[0] for ids in self._prompts}


def test_a_template_writes_the_day_that_it_is_given(dated_model: str) -> None:
    for day, text in ((TODAY, "04 Mar 2026, 00:00"), (date(2025, 12, 31), "31 Dec 2025, 00:00")):
        tokenizer = HFTokenizer.load(dated_model, today=day)
        alone = tokenizer.render([Message("user", "Why?")], {})
        assert tokenizer.show(alone).startswith(f"Today is {text}.")
        assert tokenizer.render_many([[Message("user", "Why?")]] * 2, {}) == [alone, alone]


def test_a_run_that_goes_on_another_day_keeps_its_date(
    local_config: Make, dated_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Watching()

    def config(steps: int) -> RunConfig:
        return local_config(student=dated(local_config, dated_model), loss=loss, train={"max_steps": steps})

    on(TODAY, monkeypatch)
    folder = run(config(1)).run_dir
    assert "writes the date; it is 2026-03-04 for the whole run" in (folder / "run.log").read_text()
    on(TODAY + timedelta(days=400), monkeypatch)
    run(config(2), resume=True)
    assert loss.dates(dated_model) == {"Today is 04 Mar 2026, 00:00."}
    assert json.loads((folder / "checkpoints/step-2/engine.json").read_text())["today"] == "2026-03-04"


def test_the_config_says_the_day_and_another_one_is_another_run(
    local_config: Make, dated_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Watching()

    def config(steps: int, day: str | None) -> RunConfig:
        sampling = {"max_completion_tokens": 8, "template_date": day}
        student = dated(local_config, dated_model)
        return local_config(student=student, loss=loss, train={"max_steps": steps}, sampling=sampling)

    on(TODAY + timedelta(days=400), monkeypatch)
    run(config(1, "2026-03-04"))
    assert run(config(2, None), resume=True).steps == 2  # which the checkpoint knows
    assert loss.dates(dated_model) == {"Today is 04 Mar 2026, 00:00."}
    with pytest.raises(InputError, match="the tokenizer or chat template of student changed"):
        run(config(3, "2026-03-05"), resume=True)


def test_a_template_without_a_date_does_not_care_what_the_day_is(
    local_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(TODAY, monkeypatch)
    folder = run(local_config(train={"max_steps": 1})).run_dir
    assert "writes the date" not in (folder / "run.log").read_text()
    assert run(local_config(train={"max_steps": 2}, sampling={"template_date": "2030-01-01"}), resume=True).steps == 2
