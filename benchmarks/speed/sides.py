"""What is measured beside what: each side, with the settings that it is tried in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VLLM = {
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""FlashInfer's sampler is for top-p and top-k, which nothing here asks for; it would be imported all the same.

A process that has looked at the device cannot be forked.
"""
IN_PROCESS = {**VLLM, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


@dataclass(frozen=True)
class Setting:
    """One way to run a side."""

    name: str = ""
    """As the table has it behind the side's name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the environment does not say otherwise."""


@dataclass(frozen=True)
class Side:
    """A module of this folder whose `measure` runs in a process of its own, once for each of its settings."""

    module: str
    settings: tuple[Setting, ...] = (Setting(),)
    """The first counts; the others are tried where it failed or could not take a step's sequences at once."""
    peer: bool = True
    """Not distillkit: its interpreter, and its number of steps, are the peer's."""


def _ours(module: str = "ours", **options: Any) -> Side:  # noqa: ANN401 - whatever the student's options are
    return Side(module, (Setting(options=options),), peer=False)


def _trl(**options: Any) -> Side:  # noqa: ANN401 - whatever DistillationConfig's options are
    return Side("trl_side", (Setting(options=options),))


STEPS: dict[str, Side] = {
    "distillkit": _ours(),
    "distillkit, plain": _ours(forward="plain", compile="never"),
    "distillkit, sharded": _ours(shard="always"),
    "distillkit, full KL": _ours("full_kl"),
    "distillkit, full KL, chunks of 1024": _ours("full_kl", loss_chunk_positions=1024),
    "TRL": _trl(),
    "TRL, static cache": _trl(cache_implementation="static"),
    "TRL, liger": _trl(use_liger_kernel=True),
    "TRL with vLLM": Side(
        "trl_side",
        (
            Setting(options={"use_vllm": True}, environment=IN_PROCESS),
            Setting("asleep", {"use_vllm": True, "vllm_enable_sleep_mode": True}, IN_PROCESS),
            Setting("generous", {"use_vllm": True, "vllm_gpu_memory_utilization": 0.3}, IN_PROCESS),
        ),
    ),
}
"""Whole steps."""

SAMPLING: dict[str, Side] = {
    "distillkit": _ours("ours_sampling"),
    "vLLM": Side(
        "vllm_sampling",
        (Setting("one process", environment=IN_PROCESS), Setting("several processes", environment=VLLM)),
    ),
}
"""Sampling alone; here every setting is measured, and the best of each figure counts."""
