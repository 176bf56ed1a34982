"""What each family is put through: rows that make a batch hard, and two short runs on them.

Prompts have different lengths, begin with a system prompt that all share, and half have one of the teacher's own; they
are longer than the sliding windows of the tiny models. Stop strings end completions at different times. The learning
rates move the policy by nats, so that a difference between what is trained, sampled and exported is no small one.
"""

import json
from pathlib import Path
from typing import Any, Literal

from distillkit import RunConfig
from distillkit.testing import ListSink

Mode = Literal["lora", "all weights"]
MODES: tuple[Mode, ...] = ("lora", "all weights")
SYSTEM = {"role": "system", "content": "Say what you see."}
QUESTIONS = ("why", "what is red and round", "who", "where are they all going now", "when", "how far is it to there",
             "is it so", "which of the two is it")  # fmt: skip
HELD_OUT = ("and", "what else could it ever have been", "tell me")
PRIVILEGED = ({"role": "system", "content": "Say what you see. It is an apple."},)
STOP = ("a", "e", "i", "o", "t", "n", "s", "A", "E", "Q", "7", "#", " ")
"""Of 256 bytes, so that of 14 tokens about half are reached."""
STUDENT: dict[Mode, dict[str, Any]] = {
    "lora": {"lora_rank": 4, "lora_alpha": 8, "learning_rate": 0.02},
    "all weights": {"lora_rank": 0, "learning_rate": 0.002},
}
SYNC_INTERVAL: dict[Mode, int] = {"lora": 2, "all weights": 1}
"""Of the LoRA two: what is sampled after the first step must still be the base's."""
ON_CPU = {"name": "local", "dtype": "float32", "device": "cpu"}


def write_rows(folder: Path) -> None:
    """Write `train.jsonl` and `heldout.jsonl` into the folder."""
    for name, questions in (("train.jsonl", QUESTIONS), ("heldout.jsonl", HELD_OUT)):
        rows = []
        for index, content in enumerate(questions):
            user = {"role": "user", "content": content}
            own = {"teacher_messages": [*PRIVILEGED, user]} if index % 2 else {}
            rows.append({"messages": [SYSTEM, user], **own})
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def trial_config(folder: Path, student: str, teacher: str, mode: Mode, sink: ListSink) -> RunConfig:
    """A run of three steps in `folder`, where `write_rows` wrote; all its completions are kept with their logprobs."""
    return RunConfig(
        name=mode.replace(" ", "-"),
        log_path=str(folder / "runs" / "{name}"),
        data={"path": str(folder / "train.jsonl"), "eval_path": str(folder / "heldout.jsonl")},
        student={**ON_CPU, "model": student, **STUDENT[mode]},
        teachers=[{"model": teacher, "scorer": ON_CPU}],
        sampling={"completions_per_prompt": 2, "max_completion_tokens": 14, "stop": STOP},
        train={
            "prompt_groups_per_step": 3,
            "weight_sync_interval": SYNC_INTERVAL[mode],
            "samples_per_route": 100,
            "save_every_minutes": 0,
        },
        probe={"at_start": "never"},  # random models hardly ever end by themselves
        sinks=[sink],
    )
