"""Whole steps by distillkit, through its public API."""

import json
from pathlib import Path
from typing import Any

import torch

import distillkit
from benchmarks.speed.machine import matrix_peak
from benchmarks.speed.shapes import Shape
from distillkit import Loss, RunConfig

PHASES = ("sample", "score", "train", "sync", "step")


def config_of(
    inputs: dict[str, Path], shape: Shape, steps: int, options: dict[str, Any], folder: Path, loss: Loss | None = None
) -> RunConfig:
    """A run of a shape, of student and teacher in this process, that writes into `folder`; None: the default loss."""
    device = {"device": shape.device, "dtype": shape.dtype}
    return RunConfig.model_validate(
        {
            "name": "speed",
            "log_path": f"{folder}/{{name}}",
            "data": {"path": str(inputs["data"])},
            "student": {
                "name": "local",
                "model": str(inputs["student"]),
                "lora_rank": shape.lora_rank,
                "sample_batch_size": shape.sequences,
                **device,
                **options,
            },
            "teachers": [{"model": str(inputs["teacher"]), "scorer": {"name": "local", **device}}],
            "sampling": {"completions_per_prompt": shape.completions, "max_completion_tokens": shape.new_tokens},
            "train": {"prompt_groups_per_step": shape.prompts, "max_steps": steps, "save_every": 0},
            "probe": {"at_start": "never"},
            "sinks": [],
            **({} if loss is None else {"loss": loss}),
        }
    )


def measure(
    inputs: dict[str, Path], shape: Shape, steps: int, options: dict[str, Any], folder: Path, loss: Loss | None = None
) -> dict[str, Any]:
    """Seconds of every step and phase, the peak of PyTorch's memory in GiB, and operations a second of a large product.

    The run writes into `folder`.
    """
    config = config_of(inputs, shape, steps, options, folder, loss)
    result = distillkit.run(config)
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    taken = [line for line in lines if "time/step" in line]
    return {
        "steps": [{name: line[f"time/{name}"] for name in PHASES if f"time/{name}" in line} for line in taken],
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if shape.device == "cuda" else None,
        "peak_flops": matrix_peak(shape.device, shape.dtype, 30 if shape.device == "cuda" else 5),
    }
