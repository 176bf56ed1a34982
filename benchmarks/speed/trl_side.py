"""Whole steps by TRL's DistillationTrainer, on the same models and prompts; by transformers' generation or vLLM's."""

import gc
import json
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import DistillationConfig, DistillationTrainer
from trl.extras.profiling import ProfilingContext

from benchmarks.speed.shapes import Shape
from benchmarks.speed.trl_settings import config_options

SAMPLED = ("transformers.generate", "vLLM.generate", "sync_weights")
"""What TRL's own profiler times of sampling; each ends with values on the host, or with all of its work queued before
the next that does. Scoring is a part of its training, and is not timed by itself: that would wait for the device."""


class Clock(TrainerCallback):
    """When each optimizer step ended, and the seconds of sampling within it."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.sampled: dict[int, float] = defaultdict(float)

    def begin(self) -> None:
        """Forget what was measured."""
        self.sampled.clear()
        self.ends = [time.perf_counter()]

    def add(self, context: ProfilingContext, seconds: float) -> None:
        """Called by TRL's profiler."""
        if context.name.partition(".")[2] in SAMPLED:
            self.sampled[len(self.ends) - 1] += seconds

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Called by the trainer."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def steps(self) -> list[dict[str, float]]:
        """Of each step its seconds, those of sampling, and of all that is left: scoring and training."""
        seconds = [after - before for before, after in pairwise(self.ends)]
        return [
            {"step": step, "sample": self.sampled[i], "train": step - self.sampled[i]} for i, step in enumerate(seconds)
        ]


def measure(inputs: dict[str, Path], shape: Shape, steps: int, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As `ours.measure`; `options` are DistillationConfig's. Takes the largest batch that fits in memory.

    Raises:
        MemoryError: if none does.
    """
    clock = Clock()
    ProfilingContext._log_metrics = lambda context, seconds: clock.add(context, seconds)
    trainer = _trainer(inputs, shape, steps, options, folder, clock)
    for batch in shape.trl_batch:
        if _train(trainer, shape, batch, clock):
            return {
                "steps": clock.steps(),
                "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if shape.device == "cuda" else None,
                "batch": batch,
                "settings": {"vllm_gpu_memory_utilization": trainer.args.vllm_gpu_memory_utilization}
                if options.get("use_vllm")
                else {},
            }
    raise MemoryError(f"not even a batch of {shape.trl_batch[-1]} fits")


def _train(trainer: DistillationTrainer, shape: Shape, batch: int, clock: Clock) -> bool:
    """Whether it went to its end; it starts anew each time."""
    trainer.args.per_device_train_batch_size = trainer._train_batch_size = batch
    trainer.args.gradient_accumulation_steps = shape.sequences // batch
    trainer._step, trainer._buffered_inputs = 0, None
    trainer._current_train_step_time = 0.0
    trainer.optimizer = trainer.lr_scheduler = None
    if getattr(trainer, "vllm_generation", None) is not None:
        trainer._last_loaded_step = -1
    clock.begin()
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        print(f"a batch of {batch} does not fit: {error}", flush=True)
    else:
        return True
    trainer.model.zero_grad(set_to_none=True)  # out of the handler: the error holds what was computed
    trainer.accelerator.free_memory()
    trainer.optimizer = trainer.lr_scheduler = trainer._buffered_inputs = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return False


def _trainer(
    inputs: dict[str, Path], shape: Shape, steps: int, options: dict[str, Any], folder: Path, clock: Clock
) -> DistillationTrainer:
    rows = [json.loads(line) for line in inputs["data"].read_text().splitlines()]
    device_bytes = torch.cuda.get_device_properties(0).total_memory if shape.device == "cuda" else None
    settings = config_options(shape, steps, shape.trl_batch[0], folder, options, device_bytes)
    return DistillationTrainer(
        model=str(inputs["student"]),
        teacher_model=str(inputs["teacher"]),
        args=DistillationConfig(**settings),
        train_dataset=Dataset.from_list(
            [{"prompt": row["messages"]} for row in rows for _ in range(shape.completions)]
        ),
        processing_class=AutoTokenizer.from_pretrained(inputs["student"], padding_side="left"),
        peft_config=LoraConfig(r=shape.lora_rank, lora_alpha=32, target_modules="all-linear")
        if shape.lora_rank
        else None,
        callbacks=[clock],
    )
