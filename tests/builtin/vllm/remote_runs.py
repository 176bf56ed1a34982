"""Runs that sample from servers one completion at a time, and what they must have left."""

from conftest import read_jsonl

import distillkit
from distillkit.loop.training import MISMATCH

ONE_BY_ONE = {"concurrency": {"initial": 1, "max": 1}}
"""So that a server can be stopped while a window is half sampled."""
CLOSE = 1e-3
"""Nats: float32 on both sides, with the LoRA merged on one and beside the weights on the other."""


def require_lossless(result: distillkit.RunResult, steps: int = 3) -> None:
    """All was trained, by the policy that the server was given last."""
    assert (result.steps, result.summary["failed_completions"]) == (steps, 0)
    ledger = read_jsonl(result.run_dir / "ledger.jsonl")
    assert {one["outcome"] for row in ledger for one in row["completions"]} == {"trained"}
    samples = [one for one in read_jsonl(result.run_dir / "samples.jsonl") if one["split"] == "train"]
    assert {(one["step"], one["policy_version"]) for one in samples} == {(s, s - 1) for s in range(1, steps + 1)}
    trained = [row for row in result.metrics if row["step"]]  # else an evaluation alone
    assert len(trained) == steps
    assert all(row[MISMATCH] <= row[f"{MISMATCH}_max"] for row in trained)
    assert all(row[MISMATCH] < CLOSE for row in trained)
