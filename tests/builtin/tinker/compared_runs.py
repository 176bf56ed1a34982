"""Runs of four steps, and what one that was disturbed has to share with one that was not."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from conftest import read_jsonl
from safetensors.torch import load_file

from builtin.tinker.runs import make_config
from distillkit import RunConfig, RunResult

if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService

STEPS = 4
Numbers = list[tuple[float, float, float]]


def config_of(service: "TinkerService", folder: Path, models: tuple[str, str], name: str, **over: Any) -> RunConfig:
    """Four steps of two rows, each saved."""
    train = {"prompt_groups_per_step": 2, "save_every": 1, **over.pop("train", {})}
    return make_config(service, folder, *models, name=name, train=train, **over)


def numbers(run_dir: Path) -> Numbers:
    lines = [line for line in read_jsonl(run_dir / "metrics.jsonl") if "train/loss" in line]
    return [(line["step"], line["train/loss"], line["train/reverse_kl"]) for line in lines]


def require_same(run_dir: Path, calm: RunResult) -> None:
    """Metrics, ledger and weights to the last bit."""
    assert numbers(run_dir) == numbers(calm.run_dir)
    assert len(numbers(run_dir)) == STEPS
    outcomes = [(entry["row_id"], entry["outcome"]) for entry in read_jsonl(run_dir / "ledger.jsonl")]
    assert outcomes == [(entry["row_id"], entry["outcome"]) for entry in read_jsonl(calm.run_dir / "ledger.jsonl")]
    mine, theirs = (load_file(each / "adapter/adapter_model.safetensors") for each in (run_dir, calm.run_dir))
    assert mine.keys() == theirs.keys()
    assert all(bool((mine[name] == theirs[name]).all()) for name in mine)
