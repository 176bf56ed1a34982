"""The run's own files. They are the engine's, not a sink's: failing to write them ends the run."""

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import yaml
from pydantic import JsonValue

from distillkit.config import RunConfig
from distillkit.errors import InputError
from distillkit.registry import Registry
from distillkit.tokenizer import Tokenizer
from distillkit.types import ScoredRollout

MARKER = "config.yaml"
"""A directory that holds this file holds a run."""
log = logging.getLogger("distillkit")


def run_directory(config: RunConfig) -> Path:
    """Where a config's run writes."""
    return Path(config.log_path.replace("{name}", config.name))


def require_room(run_dir: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise InputError, before anything is loaded, if a run cannot write or go on here."""
    holds_run = (run_dir / MARKER).is_file()
    if run_dir.exists() and not run_dir.is_dir():
        raise InputError(f"{run_dir} is a file; choose another log_path or name")
    if resume:
        if not any((run_dir / "checkpoints").glob("step-*")):
            raise InputError(f"{run_dir}: nothing to resume, no checkpoint is there; run without --resume")
    elif holds_run and not overwrite:
        raise InputError(
            f"{run_dir} already holds a run. Go on with it by --resume, replace it by --overwrite, "
            "or write elsewhere by name=another-name"
        )
    elif run_dir.is_dir() and any(run_dir.iterdir()) and not holds_run:
        raise InputError(f"{run_dir} holds files that are no run of distillkit's; choose another log_path or name")


def make_room(run_dir: Path, *, overwrite: bool) -> None:
    """Make the run's directory, in place of an older run if the user said so."""
    try:
        if overwrite and (run_dir / MARKER).is_file():
            shutil.rmtree(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run_dir} cannot be made: {error.strerror}; choose another log_path") from error


def finite(value: float) -> float | None:
    """JSON knows no NaN or infinity: an unknown number is null."""
    return value if math.isfinite(value) else None


@dataclass(slots=True)
class RunFiles:
    """`config.yaml`, `metrics.jsonl`, `samples.jsonl`, `summary.json` and `run.log` of one run."""

    run_dir: Path
    _metrics: IO[str]
    _samples: IO[str]
    _handler: logging.Handler

    @classmethod
    def open(cls, run_dir: Path) -> "RunFiles":
        """Append to the files in `run_dir`, and send distillkit's log there."""
        handler = logging.FileHandler(run_dir / "run.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        if log.getEffectiveLevel() > logging.INFO:
            log.setLevel(logging.INFO)
        log.propagate = False
        metrics = (run_dir / "metrics.jsonl").open("a", encoding="utf-8")
        return cls(run_dir, metrics, (run_dir / "samples.jsonl").open("a", encoding="utf-8"), handler)

    def write_config(self, config: RunConfig, registry: Registry) -> None:
        """The resolved config, complete; what a file cannot choose by name is marked."""
        lines = [
            "# The resolved config of this run: `distillkit run config.yaml name=again` runs it once more.",
            f"# Relative paths start at {Path.cwd()}",
        ]
        for key in config.unreproducible(registry):
            lines.append(f"# NOT RE-RUNNABLE: {key} was passed in Python; no plugin of that name is installed.")
        text = yaml.safe_dump(config.dump(), sort_keys=False, allow_unicode=True, width=120)
        (self.run_dir / MARKER).write_text("\n".join(lines) + "\n" + text, encoding="utf-8")

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> dict[str, JsonValue]:
        """One line a step; returns it."""
        row: dict[str, JsonValue] = {"step": step, **{name: finite(value) for name, value in metrics.items()}}
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        return row

    def write_samples(
        self, step: int, split: Literal["train", "heldout"], scored: Sequence[ScoredRollout], tokenizer: Tokenizer
    ) -> None:
        """Completions with each token's logprob under student and teacher."""
        for one in scored:
            record = {"step": step, "split": split, **sample_record(one, tokenizer)}
            self._samples.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._samples.flush()

    def write_summary(self, summary: Mapping[str, JsonValue]) -> None:
        """`summary.json`, whole or not at all."""
        aside = self.run_dir / "summary.json.new"
        aside.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        aside.replace(self.run_dir / "summary.json")

    def close(self) -> None:
        """Close the files."""
        self._metrics.close()
        self._samples.close()
        log.removeHandler(self._handler)
        self._handler.close()


def read_metrics(run_dir: Path) -> list[dict[str, JsonValue]]:
    """The rows of `metrics.jsonl`."""
    with (run_dir / "metrics.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def sample_record(one: ScoredRollout, tokenizer: Tokenizer) -> dict[str, JsonValue]:
    """A completion as `samples.jsonl` holds it."""
    rollout = one.rollout
    return {
        "row_id": one.key.row_id,
        "epoch": one.key.epoch,
        "sample": one.key.sample,
        "route": one.prompts.route.label,
        "policy_version": rollout.policy_version,
        "question": one.prompts.row.messages[-1].content,
        "prompt": tokenizer.show(rollout.request.prompt_ids.tolist()),
        "teacher_prompts": {name: tokenizer.show(ids.tolist()) for name, ids in one.prompts.teachers.items()},
        "text": rollout.text,
        "finish_reason": rollout.finish_reason,
        "tokens": [tokenizer.show([token]) for token in rollout.token_ids.tolist()],
        "token_ids": rollout.token_ids.tolist(),
        "student_logprobs": [finite(round(x, 5)) for x in rollout.logprobs.tolist()],
        "teacher_logprobs": {
            name: [finite(round(x, 5)) for x in score.logprobs.tolist()] for name, score in one.scores.items()
        },
        "ids_proved": {name: score.ids_proved for name, score in one.scores.items()},
    }
