"""Runs of the local backend that go on: the same numbers to the bit, or refused as another run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import distillkit
from distillkit import RunConfig
from distillkit.errors import InputError

Make = Callable[..., RunConfig]
SCORER = {"name": "local", "dtype": "float32", "device": "cpu"}


def numbers(result: distillkit.RunResult) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in result.metrics]


def test_two_runs_of_one_config_are_the_same_to_the_bit(local_config: Make) -> None:
    first, second = (distillkit.run(local_config(name=name)) for name in ("one", "two"))
    assert numbers(first) == numbers(second)
    weights = [(result.adapter_path / "adapter_model.safetensors").read_bytes() for result in (first, second)]
    assert weights[0] == weights[1]


def test_a_resumed_run_equals_one_that_was_never_interrupted(local_config: Make) -> None:
    whole = distillkit.run(local_config(name="whole", data={"epochs": 2}))
    distillkit.run(local_config(name="parts", data={"epochs": 2}, train={"max_steps": 2}))
    resumed = distillkit.run(local_config(name="parts", data={"epochs": 2}), resume=True)
    assert numbers(resumed)[-2:] == numbers(whole)[-2:]
    weights = [(result.adapter_path / "adapter_model.safetensors").read_bytes() for result in (whole, resumed)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_with_more_steps_a_resumed_run_has_the_rates_of_the_new_plan_from_its_first_step(
    local_config: Make, schedule: str
) -> None:
    def config(name: str, epochs: int, **train: int) -> RunConfig:
        return local_config(name=name, data={"epochs": epochs}, student={"lr_schedule": schedule}, train=train)

    def rates(result: distillkit.RunResult) -> list[float]:
        return [row["train/learning_rate"] for row in result.metrics]

    whole = distillkit.run(config("whole", 2, prompt_groups_per_step=4))
    distillkit.run(config("parts", 1, prompt_groups_per_step=4))  # two steps, the second at half the rate
    more = distillkit.run(config("parts", 2, prompt_groups_per_step=4), resume=True)
    assert (
        rates(more)[2:] == rates(whole)[2:] == pytest.approx([0.01, 0.005 if schedule == "linear" else 0.00293], 0.01)
    )
    log = (more.run_dir / "run.log").read_text()
    assert log.count("was to have 2 optimizer steps when it was saved, and has 4 now: the learning rates of the ") == 1


def test_the_rates_follow_the_steps_that_there_are_though_one_was_not_full(local_config: Make) -> None:
    def config(epochs: int) -> RunConfig:
        train = {"prompt_groups_per_step": 5, "num_substeps": 2}
        return local_config(data={"epochs": epochs}, student={"lr_schedule": "linear"}, train=train)

    distillkit.run(config(1))  # of 5 and 3 rows
    more = distillkit.run(config(2), resume=True)  # two more: 8 optimizer steps in all
    assert [row["train/learning_rate"] for row in more.metrics[2:]] == pytest.approx(
        [0.02 * (3.5 / 8), 0.02 * (1.5 / 8)]  # the means of two optimizer steps
    )


def test_a_resume_of_the_same_plan_says_nothing_of_rates(local_config: Make) -> None:
    config = local_config(student={"lr_schedule": "linear"}, train={"prompt_groups_per_step": 4, "save_every": 1})
    folder = distillkit.run(config).run_dir
    (folder / "summary.json").unlink()  # as if it had been killed just before its end
    distillkit.run(config, resume=True)
    assert "learning rates" not in (folder / "run.log").read_text()


def retrained(model: Path) -> None:
    """Move the weights in place, by as little as training does."""
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor + 1e-3 for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})


def test_another_number_format_on_another_machine_is_another_run(
    local_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(steps: int) -> RunConfig:
        student = {"name": "local", "model": local_config().student.model, "device": "cpu", "dtype": "auto"}
        return local_config(student=student, train={"max_steps": steps})

    def this_cpu(*, fast: bool) -> None:
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: fast)

    this_cpu(fast=False)
    distillkit.run(config(1))
    this_cpu(fast=True)
    with pytest.raises(InputError, match='the number format of student was "float32", is "bfloat16"'):
        distillkit.run(config(2), resume=True)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_model_whose_weights_changed_under_its_name_is_another_run_and_a_copy_is_not(
    local_config: Make, tiny_model: str, other_tiny_model: str, tmp_path: Path, who: str
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny_model if who == "student" else other_tiny_model, mine)

    def config(epochs: int) -> RunConfig:
        teachers = [{"model": str(mine), "route_value": "t", "scorer": SCORER}]
        over = {"student": {"model": str(mine)}} if who == "student" else {"teachers": teachers}
        return local_config(data={"epochs": epochs}, **over)

    distillkit.run(config(1))
    shutil.move(mine, tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", mine, copy_function=shutil.copyfile)  # with other times
    distillkit.run(config(2), resume=True)
    retrained(mine)
    with pytest.raises(InputError) as caught:
        distillkit.run(config(3), resume=True)
    name = "student" if who == "student" else "teacher 't'"
    assert str(caught.value).splitlines()[1:-1] == [f"  the weights of {name} changed"]
