"""SkyRL's Tinker server, on its JAX backend on the CPU."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from servers.server_process import ServerProcess, python_of

SERVE = Path(__file__).parent / "serve.py"
LIMITS = {"max_lora_adapters": 8, "max_lora_rank": 16, "train_micro_batch_size": 1, "sample_max_num_sequences": 4}
PYTHON = python_of("skyrl")
COMPILED = PYTHON.parents[1] / "jax-cache"
"""XLA compiles each shape once, which takes seconds, or a minute; it stays with the environment."""

QUICK_TO_COMPILE = "--xla_llvm_disable_expensive_passes=true"


@dataclass
class SkyrlProcess(ServerProcess):
    """`model` served under its path; what it keeps lies in `log`'s folder, and outlives a kill."""

    prompt_logprobs: str = "n-1"
    lengths: tuple[int, ...] = (192, 640)
    """What the engine pads ids to: each is compiled once for sampling, for scoring and for training, if it is used."""

    python: ClassVar[Path] = PYTHON
    health: ClassVar[str] = "/api/v1/healthz"
    environment: ClassVar[Mapping[str, str]] = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": QUICK_TO_COMPILE,
        "JAX_COMPILATION_CACHE_DIR": str(COMPILED),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }

    @property
    def url(self) -> str:
        """As `base_url` wants it."""
        return self.root

    def command(self) -> list[str | Path]:
        folder = self.log.parent
        served = [self.python, SERVE, "--base-model", self.model, "--backend", "jax"]
        limits = ["--backend-config", json.dumps(LIMITS), "--prompt-logprobs", self.prompt_logprobs]
        shapes = ["--lengths", ",".join(map(str, self.lengths))]
        kept = ["--checkpoints-base", folder / "checkpoints", "--database-url", f"sqlite:///{folder}/tinker.db"]
        sessions = ["--session-timeout-sec", "60", "--session-cleanup-interval-sec", "10"]
        return [*served, *limits, *shapes, *kept, *sessions, "--host", "127.0.0.1", "--port", str(self.port)]
