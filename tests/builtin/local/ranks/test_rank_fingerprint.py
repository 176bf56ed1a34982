"""What ranks must have alike: found on each host, wherever it has it, and compared with a word on what to do."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit import RunConfig
from distillkit.context import RunContext, SharedObjects
from distillkit.errors import InputError
from distillkit.preflight.prepared_run import context_for
from distillkit.ranks import ONLY, Rank
from distillkit_builtin.local.options import LocalScorerOptions
from distillkit_builtin.local.ranks.rank_fingerprint import (
    Fingerprint,
    require_alike,
    student_fingerprint,
    teacher_fingerprint,
)

Make = Callable[..., RunConfig]
CPU = torch.device("cpu")
NAMES = ["rank 0 on a", "rank 1 on b"]


def context(config: RunConfig, rank: Rank = Rank(1, 2)) -> RunContext:  # noqa: B008 - frozen
    return context_for("student", config, SharedObjects(), print, rank)


def of(config: RunConfig) -> Fingerprint:
    student: Any = config.student
    return student_fingerprint(context(config), student, CPU)


def refusal(*found: Fingerprint) -> list[str]:
    with pytest.raises(InputError) as caught:
        require_alike(found, NAMES)
    return str(caught.value).splitlines()


def test_places_may_differ_and_content_may_not(local_config: Make, tiny_model: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    here, there = local_config(), local_config(student={"model": str(copy)}, data={"path": "x.jsonl"}, log_path="y")
    require_alike([of(here), of(there)], NAMES)
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text().replace('"hello"', '"hullo"'))
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    lines = refusal(of(here), of(there))
    assert lines == [
        "rank 1 on b: the content of student's model (weights) is not what it is on rank 0 on a; every host needs a "
        "copy of the same model, at any path"
    ]


def test_options_seed_versions_and_number_formats_are_compared(
    local_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = of(local_config())
    theirs = dict(of(local_config(seed=7, student={"learning_rate": 0.5, "dtype": "bfloat16"})))
    theirs |= {"the version of torch": "1.0", "the code of distillkit": "0"}
    lines = refusal(mine, theirs)
    assert any(line.startswith("rank 1 on b: seed is 7, and 0 on rank 0 on a; start every process") for line in lines)
    assert any("student.learning_rate is 0.5, and 0.02 on" in line for line in lines)
    assert any(
        "the number format of student is bfloat16, and float32 on" in line and "by dtype" in line for line in lines
    )
    assert any("the version of torch is 1.0, and" in line and "install the same" in line for line in lines)
    assert any("the code of distillkit is not what it is on" in line and "copy the same file" in line for line in lines)


def test_what_only_rank_0_does_may_differ(local_config: Make) -> None:
    other = local_config(train={"save_every": 3, "max_steps": 1}, name="other", sinks=["console"])
    require_alike([of(local_config()), of(other)], NAMES)


def test_a_teacher_is_compared_where_each_host_has_it(
    local_config: Make, tiny_model: str, other_tiny_model: str, tmp_path: Path
) -> None:
    teacher, options = local_config().teachers[0].teacher, LocalScorerOptions(device="cpu", dtype="float32")
    copy = tmp_path / "copy"
    shutil.copytree(other_tiny_model, copy)
    mine, same, other = (
        teacher_fingerprint(replace(teacher, model=str(model)), options, CPU)
        for model in (other_tiny_model, copy, tiny_model)
    )
    require_alike([mine, same], NAMES)
    assert "the content of teacher" in refusal(mine, other)[0]


def test_a_process_that_is_alone_compares_nothing(local_config: Make) -> None:
    assert context(local_config(), ONLY).must_agree == {}
    assert "student.lora_rank" in context(local_config()).must_agree


def test_the_code_of_scripts_student_and_loss_counts(local_config: Make, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text("A = 1\n")
    config = local_config(plugins=[str(script)])
    before = context(config).must_agree
    assert {"the code of plugins.0 (mine.py)", "the code of student 'local'"} <= before.keys()
    script.write_text("A = 2\n")
    after = context(config).must_agree
    assert [name for name in before if before[name] != after[name]] == ["the code of plugins.0 (mine.py)"]
