"""A family of each kind is computed as docs/models.md says; `make families` measures all of them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from families import trial
from families.measure import measure
from families.table import TableRow, differences, rows_of_page
from families.trial import Subjects

CHOSEN = (
    "llama", "mistral", "phi3", "gemma3", "qwen3_moe", "gpt_oss", "deepseek_v3", "qwen3_5", "lfm2", "mamba2", "jamba",
    "mistral3", "qwen2_5_vl",
)  # fmt: skip
"""Dense, with a window, with rotary factors that switch, of experts, latent, recurrent, hybrid, in a wrapper."""


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """Models this small are slower on two threads."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", CHOSEN)
def test_a_family_is_what_its_row_says(name: str, tmp_path: Path) -> None:
    measured = measure(name, tmp_path)
    assert differences([TableRow.of(measured)], rows_of_page()) == []


def test_other_weights_than_the_references_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Subjects.load

    def exchanged(folder: Path, student: str, teacher: str) -> Subjects:
        found = load(folder, student, teacher)
        return Subjects(folder, found.student, found.teacher, found.taught, found.base, found.tokenizer)

    monkeypatch.setattr(trial.Subjects, "load", staticmethod(exchanged))
    measured = measure("llama", tmp_path)
    assert measured.is_wrong
    assert {mode: set(found.off) for mode, found in measured.trials.items()} == {
        "lora": {"student", "teacher", "export"},  # the adapter is put on the other base
        "all weights": {"student", "teacher"},
    }


def test_a_policy_that_is_never_published_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy

    monkeypatch.setattr(SamplingCopy, "refresh", lambda self: None)
    measured = measure("llama", tmp_path)
    assert measured.export == "wrong"
    assert measured.trials["all weights"].off.keys() == {"export", "mismatch"}


def test_a_run_that_breaks_is_a_failure_with_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise IndexError("no\nsuch layer")

    monkeypatch.setattr("distillkit.run", broken)
    measured = measure("llama", tmp_path)
    assert measured.is_wrong
    assert measured.remarks == "run: IndexError: no such layer"
    assert TableRow.of(measured).cells[1:5] == ("-", "failed", "failed", "-")


def test_what_check_refuses_is_refused_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "trial_config", _without_rows(trial.trial_config))
    measured = measure("llama", tmp_path)
    assert not measured.is_wrong
    assert TableRow.of(measured).cells[1:5] == ("-", "refused", "refused", "-")
    assert "FOLDER/train.jsonl" in measured.remarks


def _without_rows(make: Any) -> Any:
    def made(folder: Path, *rest: Any) -> Any:
        (folder / "train.jsonl").unlink(missing_ok=True)
        return make(folder, *rest)

    return made
