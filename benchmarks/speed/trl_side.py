"""Whole steps by TRL's DistillationTrainer with transformers' generation, on the same models and prompts."""

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import DistillationConfig, DistillationTrainer

from benchmarks.speed.shapes import Shape


class Clock(TrainerCallback):
    """When each optimizer step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Called by the trainer."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def measure(inputs: dict[str, Path], shape: Shape, steps: int, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """As `ours.measure`; `options` are DistillationConfig's. Takes the largest batch that fits in memory."""
    for size in shape.trl_batch:
        try:
            return {**_measure(inputs, shape, steps, options, size, folder), "batch": size}
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    raise MemoryError(f"not even a batch of {shape.trl_batch[-1]} fits")


def _measure(
    inputs: dict[str, Path], shape: Shape, steps: int, options: dict[str, Any], batch: int, folder: Path
) -> dict[str, Any]:
    rows = [json.loads(line) for line in inputs["data"].read_text().splitlines()]
    clock = Clock()
    dtype = {"dtype": "bfloat16" if shape.dtype == "bfloat16" else "float32"}
    trainer = DistillationTrainer(
        model=str(inputs["student"]),
        teacher_model=str(inputs["teacher"]),
        args=DistillationConfig(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=shape.sequences // batch,
            max_completion_length=shape.new_tokens,
            temperature=1.0,
            gradient_checkpointing=False,
            bf16=shape.dtype == "bfloat16",
            use_cpu=shape.device == "cpu",
            # A student whose weights are all trained is kept in float32, as distillkit keeps it.
            model_init_kwargs={"dtype": "float32"} if shape.lora_rank == 0 else dtype,
            teacher_model_init_kwargs=dtype,
            logging_steps=1000,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **options,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": row["messages"]} for row in rows for _ in range(shape.completions)]
        ),
        processing_class=AutoTokenizer.from_pretrained(inputs["student"], padding_side="left"),
        peft_config=LoraConfig(r=shape.lora_rank, lora_alpha=32, target_modules="all-linear")
        if shape.lora_rank
        else None,
        callbacks=[clock],
    )
    begin = time.perf_counter()
    trainer.train()
    ends = [begin, *clock.ends]
    return {
        "steps": [{"step": after - before} for before, after in pairwise(ends)],
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if shape.device == "cuda" else None,
    }
