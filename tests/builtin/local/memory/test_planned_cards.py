"""What `check` reckons of a run on a card that it is planned for, beside peaks that were measured on such a card."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedConfig, Qwen3Config

from builtin.local.memory.memory_reports import H200, report, weights
from distillkit import PlannedDevice, Rank
from distillkit.memory import GIB
from distillkit.preflight.memory_fit import DeviceFit, device_fits
from distillkit.testing import make_context, make_teacher
from distillkit.testing.builders import TEST_PLAN
from distillkit_builtin.local.memory import inference_sizes, reports, training_sizes
from distillkit_builtin.local.model.footprint import Footprint
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent


def qwen(hidden: int, ffn: int, layers: int, heads: int, *, tied: bool = True) -> PreTrainedConfig:
    sizes = {"hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads}
    more = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": tied}
    return Qwen3Config(**sizes, **more, max_position_embeddings=4096)


SHAPES = {
    "0.6B": qwen(1024, 3072, 28, 16),
    "1.7B": qwen(2048, 6144, 28, 16),
    "8B": qwen(4096, 12288, 36, 32, tied=False),
    "8B tied": qwen(4096, 12288, 36, 32),
    "12 layers": qwen(4096, 12288, 12, 32),
}


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., DeviceFit]:
    """The fit of a run on one card, from configs alone: of 64 prompts with one completion each, or as many as given."""

    def fit(
        student: str,
        teacher: str,
        prompt: int,
        new: int,
        *,
        prompts: int = 64,
        each: int = 1,
        rank: Rank | None = None,
        device: PlannedDevice = H200,
        **options: Any,
    ) -> DeviceFit:
        for name in (student, teacher):
            SHAPES[name].save_pretrained(tmp_path / name)
        plan = replace(TEST_PLAN, step_rows=prompts, step_completions=prompts * each, new_tokens=new)
        plan = replace(plan, longest_prompt=prompt, longest_teacher_prompt=prompt)
        run = replace(make_context("student"), plan=plan, planned_device=device, rank=rank or Rank())
        scorer = LocalScorer().bind(replace(make_teacher(), model=str(tmp_path / teacher)))
        found = {
            "student": report(LocalStudent(model=str(tmp_path / student), **options), run),
            "teacher": report(scorer, replace(run, user="teacher")),
        }
        (device_fit,) = device_fits(found)
        return device_fit

    return fit


def test_what_lowers_the_weights_is_among_what_is_offered(tmp_path: Path) -> None:
    SHAPES["0.6B"].save_pretrained(tmp_path / "0.6B")
    model = str(tmp_path / "0.6B")
    run = replace(make_context("student"), plan=TEST_PLAN, planned_device=H200)
    two = replace(run, rank=Rank(count=2, local_count=2))
    scorer = LocalScorer(dtype="float32").bind(replace(make_teacher(), model=model))
    every_weight = LocalStudent(model=model, lora_rank=0, dtype="float32", shard="never")
    for plugin, where, changes in (
        (scorer, run, ({"dtype": "bfloat16"},)),
        (every_weight, two, ({"lora_rank": 16}, {"dtype": "bfloat16"}, {"shard": "always"})),
    ):
        found = report(plugin, where)
        assert all(change in found.savers for change in changes)
        for change in changes:
            assert weights(report(plugin.model_copy(update=change), where)) < weights(found), change
    assert {"shard": "always"} not in report(every_weight, run).savers


AS_IT_WAS = {"micro_batch_tokens": 16_384}
"""What `null` came to when these peaks were measured."""


def no_chunks(*given: object) -> None:
    """Of a loss and a head that is trained."""


def copied_once(size: Footprint, positions: int, *, copies: int) -> int:
    """Half a float32 copy beside logits, and half beside their gradient."""
    both = [inference_sizes.logits_bytes(size, positions, copies=more) for more in (copies, copies + 1)]
    return sum(both) // 2


@pytest.mark.parametrize(
    ("student", "teacher", "plan", "options", "measured"),
    [
        ("0.6B", "1.7B", (64, 1, 128, 256), {}, 25.0),
        ("0.6B", "1.7B", (64, 1, 128, 256), {"lora_rank": 0}, 35.0),
        ("0.6B", "1.7B", (64, 1, 128, 1920), {"lora_rank": 0}, 51.5),
        ("8B tied", "8B tied", (64, 1, 256, 512), {}, 94.0),
        ("0.6B", "1.7B", (32, 8, 128, 256), {"sample_batch_size": 256}, 36.5),
        ("12 layers", "0.6B", (64, 1, 256, 512), {}, 35.0),
        ("0.6B", "1.7B", (64, 1, 128, 256), {"lora_rank": 0, "gradient_checkpointing": True}, 20.3),
        ("0.6B", "1.7B", (64, 1, 128, 64), {"forward": "plain", "micro_batch_tokens": 4096}, 13.5),
    ],
)
def test_peaks_that_were_measured_on_a_gpu_are_reckoned(
    student: str,
    teacher: str,
    plan: tuple[int, int, int, int],
    options: dict[str, Any],
    measured: float,
    planned: Callable[..., DeviceFit],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In benchmarks/README.md; layers recomputed nothing then, the fast path's slots stayed, the head saw 2,048
    positions, was computed once more backwards where it was trained, and its logits were copied to float32."""
    monkeypatch.setattr(reports, "_chunks", no_chunks)
    monkeypatch.setattr(training_sizes, "logits_bytes", copied_once)
    monkeypatch.setattr(reports, "keeps_slots", lambda size, *, fast: fast)
    monkeypatch.setattr(inference_sizes, "keeps_slots", lambda size, *, fast: fast)
    monkeypatch.setattr(inference_sizes, "ON_CUDA", 2048)
    monkeypatch.setattr(reports, "recomputes", lambda options: False)
    monkeypatch.setattr(reports, "LARGE", 10**12)
    prompts, each, prompt, new = plan
    fit = planned(student, teacher, prompt, new, prompts=prompts, each=each, **{**AS_IT_WAS, **options})
    assert fit.peak / GIB == pytest.approx(measured, rel=0.05)
    assert fit.largest_phase == ("student", "training")


@pytest.mark.parametrize(
    ("student", "teacher", "plan", "options", "measured"),
    [
        ("0.6B", "1.7B", (64, 1, 128, 256), {}, 37.9),
        ("0.6B", "1.7B", (64, 1, 128, 256), {"lora_rank": 0}, 47.7),
        ("8B", "8B", (64, 1, 256, 512), {}, 42.2),
        ("0.6B", "1.7B", (64, 8, 128, 256), {"sample_batch_size": 512}, 56.4),
    ],
)
def test_peaks_of_todays_defaults_are_reckoned(
    student: str,
    teacher: str,
    plan: tuple[int, int, int, int],
    options: dict[str, Any],
    measured: float,
    planned: Callable[..., DeviceFit],
) -> None:
    """One H200, 2026-11-30, in benchmarks/README.md."""
    prompts, each, prompt, new = plan
    fit = planned(student, teacher, prompt, new, prompts=prompts, each=each, **options)
    assert fit.peak / GIB == pytest.approx(measured, rel=0.05)


def test_a_lora_on_8b_taught_by_its_own_base_is_reckoned_below_48_gib(planned: Callable[..., DeviceFit]) -> None:
    """64 prompts of 256 tokens with 512 new ones each; by one copy of the weights far below."""
    row = ("8B", "8B", 256, 512)
    assert 38 < planned(*row).peak / GIB < 45
    beside = planned(*row, sampling_weights="adapter")
    assert 27 < beside.peak / GIB < 33
    parameters = 8_190_735_360
    assert beside.held("weights") == pytest.approx(2 * parameters + (16 + 2) * 43_646_976, rel=0.001)


def test_a_merged_copy_is_made_where_card_and_model_leave_room(planned: Callable[..., DeviceFit]) -> None:
    row = ("8B", "8B", 256, 512)
    merged, beside = (planned(*row, sampling_weights=how).held("weights") for how in ("merged", "adapter"))
    for card, expected in (("80gb", merged), ("48gb", beside)):
        device = PlannedDevice(card, int(card[:2]) * GIB)
        assert planned(*row, device=device).held("weights") == expected, card
    assert planned("0.6B", "1.7B", 128, 256, device=PlannedDevice("24gb", 24 * GIB)).held("weights") == planned(
        "0.6B", "1.7B", 128, 256, sampling_weights="merged"
    ).held("weights")


def test_what_is_said_to_lower_the_peak_lowers_it(planned: Callable[..., DeviceFit]) -> None:
    shape = ("0.6B", "1.7B", 128, 256)
    whole = planned(*shape, lora_rank=0).peak
    for change in ({"gradient_checkpointing": True}, {"micro_batch_tokens": 4096}, {"sample_batch_size": 16}):
        assert planned(*shape, lora_rank=0, **change).peak < whole
    assert planned(*shape, lora_rank=16).peak < whole


def test_ranks_hold_their_share_and_a_part_of_sharded_weights(planned: Callable[..., DeviceFit]) -> None:
    alone, shared, sharded = (
        planned("0.6B", "1.7B", 128, 256, lora_rank=0, **more)
        for more in ({}, {"rank": Rank(0, 4, 0, 4)}, {"rank": Rank(0, 4, 0, 4), "shard": "always"})
    )
    assert shared.held("weights") == alone.held("weights")
    assert shared.held("caches") == alone.held("caches") // 4
    trained = SHAPES_PARAMETERS * 16
    assert alone.held("weights") - sharded.held("weights") == pytest.approx(trained * 3 / 4, rel=0.01)


SHAPES_PARAMETERS = 596_049_920
"""Of Qwen3-0.6B."""


def test_a_teacher_that_is_the_base_of_the_lora_is_counted_once(planned: Callable[..., DeviceFit]) -> None:
    fit = planned("0.6B", "0.6B", 128, 256, lora_rank=16)
    assert [use.what for use in fit.uses["teacher"] if use.part == "weights"] == []
    assert sum(use.what.startswith("frozen weights") for use in fit.uses["student"]) == 1
