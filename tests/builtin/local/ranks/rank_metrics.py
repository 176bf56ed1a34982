"""The metrics of a run, and which of them are the same on any number of ranks."""

import json
from pathlib import Path
from typing import Any

SAME = ("train/loss", "train/grad_norm", "train/reverse_kl", "train/active_tokens", "rollout/logprob_mismatch_max")


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
