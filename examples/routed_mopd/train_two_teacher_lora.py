"""Routed distillation on Fireworks in one file: two teachers, a LoRA student, four rows. A smoke test of your account.

    FIREWORKS_API_KEY=... python examples/routed_mopd/train_two_teacher_lora.py

The rows are written into the log directory, so that what a routed row looks like can be seen there. The first kind has
a privileged prompt, which only its teacher reads. Models and the training shape can come from the environment too
(`--base-model`: `BASE_MODEL`). What is made is cleaned up in the end, unless `--keep-resources` is given.

The same run by config: `distillkit run config.yaml fireworks.yaml`.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillkit.recipes.distillation_loop import (
    Config,
    DeployConfig,
    MultiTeacherConfig,
    TeacherConfig,
    TrainerConfig,
    main,
)

MATH, ARITHMETIC = "math-teacher", "arithmetic-teacher"
ASK = "End with exactly one line: Final: <answer>."
DEFAULTS = {
    "base_model": "accounts/fireworks/models/qwen3p5-35b-a3b",
    "tokenizer_model": "Qwen/Qwen3.5-35B-A3B",
    "training_shape": "accounts/fireworks/trainingShapes/qwen3p5-35b-a3b-256k-lora",
    "math_teacher": "",  # the base model
    "arithmetic_teacher": "",
}


def rows() -> list[dict[str, Any]]:
    """Two rows a teacher, in turn."""
    problems = [("6 * 7", "42"), ("18 + 24", "42"), ("81 / 9", "9"), ("13 - 5", "8")]
    return [_row(problem, answer, (MATH, ARITHMETIC)[i % 2]) for i, (problem, answer) in enumerate(problems)]


def _row(problem: str, answer: str, teacher: str) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"Solve {problem}. {ASK}"}]
    row = {"messages": asked, "teacher": teacher, "expected_answer": answer}
    if teacher == MATH:
        told = f"Solve {problem}. The correct answer is {answer}. Explain briefly, then end with Final: {answer}."
        row["teacher_messages"] = [{"role": "user", "content": told}]
    return row


def write_rows(log_path: Path) -> Path:
    """Write the rows into the log directory."""
    path = log_path / "dataset.jsonl"
    log_path.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    return path


def config_of(options: argparse.Namespace) -> Config:
    """The recipe's config; writes the rows."""
    log_path = Path(options.log_path or f"distillation_logs/routed-mopd-{int(time.time())}")
    models = {
        MATH: options.math_teacher or options.base_model,
        ARITHMETIC: options.arithmetic_teacher or options.base_model,
    }
    teachers = [
        TeacherConfig(model, route_value=route, tokenizer_model=options.tokenizer_model)
        for route, model in models.items()
    ]
    return Config(
        log_path=str(log_path),
        base_model=options.base_model,
        dataset=str(write_rows(log_path)),
        multi_teacher=MultiTeacherConfig(route_key="teacher", teachers=teachers),
        trainer=TrainerConfig(training_shape_id=options.training_shape),
        deployment=DeployConfig(tokenizer_model=options.tokenizer_model),
        lora_rank=options.lora_rank,
        learning_rate=2e-5,
        prompt_groups_per_step=2,
        max_completion_tokens=options.max_completion_tokens,
        save_final_checkpoint=False,
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with the environment behind it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", default=os.environ.get(name.upper()) or default)
    parser.add_argument("--log-path", default="", help="a new directory below distillation_logs/ by default")
    parser.add_argument("--lora-rank", type=int, default=8)
    parser.add_argument("--max-completion-tokens", type=int, default=64)
    parser.add_argument("--keep-resources", action="store_true", help="leave what was made running: it costs money")
    return parser.parse_args(arguments)


def smoke(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run it, and see that both teachers scored."""
    options = parse(arguments)
    config = config_of(options)
    result = main(config, cancel_on_exit=not options.keep_resources)
    lines = (Path(config.log_path) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    scored = [name for name, value in json.loads(lines[-1]).items() if name.endswith("/scored") and value > 0]
    if len(scored) != 2:
        raise SystemExit(f"both teachers should have scored in the last step; these did: {scored}")
    print(f"passed: {json.dumps(result, default=str)}")
    return result


if __name__ == "__main__":
    smoke()
