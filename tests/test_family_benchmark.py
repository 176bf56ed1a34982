"""The benchmark of families, tiny and on the CPU: its references agree with what runs record."""

from pathlib import Path

import pytest

from benchmarks.families import exact, speed
from benchmarks.families.models import FAMILIES, family_config
from benchmarks.families.sizes import TINY_EXACT, TINY_SPEED, write_inputs
from benchmarks.families.tables import tables
from distillkit_builtin.local.model_files.model_class import empty_model

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_moe", "gemma3_text"])
def test_what_a_run_records_is_near_the_reference(family: str, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, family, TINY_EXACT, tiny=True)
    rows = list(exact.measure(inputs, TINY_EXACT, [CPU], tmp_path / "work"))
    assert [row["case"] for row in rows] == ["LoRA, cpu float32", "all weights, cpu float32"]
    for row in rows:
        assert "error" not in row, row
        assert row["student"]["max"] < 1e-4
        assert row["teacher"]["max"] < 1e-4
        assert row["mismatch"] < 1e-4
        assert row["gradient_norm"] == pytest.approx(row["reference_gradient_norm"], rel=1e-3)
    text = tables([{"family": family, "part": "exact", **row} for row in rows], "a machine")
    assert text.count(f"| {family} | ") == 2


@pytest.mark.slow
def test_speed_is_measured_of_ours_and_of_transformers(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path, "olmo2", TINY_SPEED, tiny=True)
    rows = {row["case"]: row for row in speed.measure(inputs, TINY_SPEED, CPU, tmp_path / "work")}
    assert len(rows) == 6
    assert not [row for row in rows.values() if "error" in row]
    assert rows["training, forward: auto"]["packed"]
    assert not rows["training, forward: plain"]["packed"]
    for case in ("sampling, forward: auto", "transformers' generate, dynamic cache"):
        assert rows[case]["tokens_per_second"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_small_real_shape(family: str) -> None:
    parameters = sum(parameter.numel() for parameter in empty_model(family_config(family, tiny=False)).parameters())
    assert 50e6 < parameters < 1e9
