"""How much is computed: small real shapes, or tiny ones by which a test sees that all of it works."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.families.models import TINY_VOCABULARY, VOCABULARY, write_model
from distillkit import RunConfig

LORA_RANK = 16


@dataclass(frozen=True)
class Sizes:
    """Of one part of the measurement."""

    prompts: int
    """Of one step, each with one completion."""
    prompt_tokens: int
    new_tokens: int
    steps: int


EXACT, SPEED = Sizes(8, 96, 32, 2), Sizes(64, 128, 128, 4)
TINY_EXACT, TINY_SPEED = Sizes(3, 20, 6, 2), Sizes(4, 12, 6, 2)


def write_inputs(folder: Path, name: str, sizes: Sizes, *, tiny: bool) -> dict[str, Path]:
    """Directories `student` and `teacher`, which are kept, and `data`: prompts of several lengths that begin alike."""
    paths = {which: folder / which for which in ("student", "teacher")}
    for seed, path in enumerate(paths.values()):
        if not (path / "tokenizer_config.json").exists():
            write_model(path, name, seed, tiny=tiny)
    words, vocabulary = random.Random(0), TINY_VOCABULARY if tiny else VOCABULARY

    def text(count: int) -> list[str]:
        return [f"w{words.randrange(2, vocabulary)}" for _ in range(count)]

    shared = text(sizes.prompt_tokens // 2)
    data = folder / f"{sizes.prompts}x{sizes.prompt_tokens}.jsonl"
    with data.open("w") as file:
        for row in range(sizes.prompts * sizes.steps):
            own = text(sizes.prompt_tokens // 2 - row % 7)
            file.write(json.dumps({"messages": [{"role": "user", "content": " ".join(shared + own)}]}) + "\n")
    return {**paths, "data": data}


def run_config(
    inputs: dict[str, Path], sizes: Sizes, device: dict[str, str], student: dict[str, Any], folder: Path
) -> RunConfig:
    """A run that writes into `folder`, with more options of the student."""
    return RunConfig.model_validate(
        {
            "name": "families",
            "log_path": f"{folder}/{{name}}",
            "data": {"path": str(inputs["data"])},
            "student": {
                "name": "local",
                "model": str(inputs["student"]),
                "sample_batch_size": sizes.prompts,
                **device,
                **student,
            },
            "teachers": [{"model": str(inputs["teacher"]), "scorer": {"name": "local", **device}}],
            "sampling": {"max_completion_tokens": sizes.new_tokens},
            "train": {
                "prompt_groups_per_step": sizes.prompts,
                "max_steps": sizes.steps,
                "save_every": 0,
                "samples_per_route": sizes.prompts,
            },
            "probe": {"at_start": "never"},
            "sinks": [],
        }
    )
