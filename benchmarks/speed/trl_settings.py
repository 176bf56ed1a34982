"""What TRL 1.16's `DistillationConfig` is given; a module without TRL, so that it can be looked at anywhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed.shapes import ModelShape, Shape

BESIDE = 6 * 2**30
"""Bytes that vLLM gets beside weights and cache: what it computes, its graphs."""
BLOCK = 16
"""Tokens of a block of vLLM's cache."""


def utilization(model: ModelShape, sequences: int, length: int, device_bytes: int) -> float:
    """The part of a GPU with which vLLM holds the weights in 16 bits and all sequences at once, and no more.

    More would not make it faster, and is taken from TRL's training, whose batches are then smaller.
    """
    blocks = -(-length // BLOCK) + 1
    needed = 2 * model.parameters + sequences * blocks * BLOCK * model.cache_bytes + BESIDE
    return min(0.92, round(needed / device_bytes + 0.005, 2))


def vllm_options(shape: Shape, device_bytes: int | None) -> dict[str, Any]:
    """For vLLM in TRL's process; on a CPU the cache's size is an environment variable."""
    options: dict[str, Any] = {
        "vllm_mode": "colocate",
        "vllm_max_model_length": shape.length + BLOCK,
    }
    if device_bytes is not None:
        options["vllm_gpu_memory_utilization"] = utilization(
            shape.student, shape.sequences, shape.length + BLOCK, device_bytes
        )
    return options


def config_options(
    shape: Shape, steps: int, batch: int, folder: Path, options: Mapping[str, Any], device_bytes: int | None
) -> dict[str, Any]:
    """All of `DistillationConfig`; `options` come last. Raises ValueError if the batches do not make a step."""
    if shape.sequences % batch:
        raise ValueError(f"batches of {batch} do not make {shape.sequences} sequences")
    dtype = {"dtype": "bfloat16" if shape.dtype == "bfloat16" else "float32"}
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": shape.sequences // batch,
        "max_completion_length": shape.new_tokens,
        "temperature": 1.0,
        "gradient_checkpointing": False,
        "bf16": shape.dtype == "bfloat16",
        "use_cpu": shape.device == "cpu",
        # A student whose weights are all trained is kept in float32, as distillkit keeps it.
        "model_init_kwargs": {"dtype": "float32"} if shape.lora_rank == 0 else dtype,
        "teacher_model_init_kwargs": dtype,
        # A row's completions stay in one step, where vLLM reads their prompt once.
        "shuffle_dataset": False,
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        **(vllm_options(shape, device_bytes) if options.get("use_vllm") else {}),
        **options,
    }
