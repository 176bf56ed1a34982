"""A real SGLang server on the CPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx

from servers.server_process import ServerProcess, python_of

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LORA = ("--enable-lora", "--max-lora-rank", "16", "--lora-backend", "torch_native", "--lora-target-modules", *LINEAR)


@dataclass
class SGLangProcess(ServerProcess):
    """`model` served by its `name`; float32, so that its numbers can be compared closely with the local backend's."""

    name: str = "smol"
    """After all weights were replaced SGLang calls its model by their path, whatever its name was."""
    raw: bool = True
    """Whether it reports raw logprobs of what it samples, which it does not by default."""

    python: ClassVar[Path] = python_of("sglang")
    health: ClassVar[str] = "/model_info"
    """Not `/health`, which asks for a token in 20 seconds, or it fails."""
    environment: ClassVar[Mapping[str, str]] = {
        "PYTHONPATH": str(Path(__file__).parent / "stubs"),
        "SGLANG_USE_CPU_ENGINE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }

    def give_back_weights(self) -> None:
        """Serve `model` again, after a test that pushed all weights."""
        body = {"model_path": str(self.model), "weight_version": "default"}
        httpx.post(f"{self.root}/update_weights_from_disk", json=body, timeout=120).raise_for_status()

    def command(self) -> list[str | Path]:
        raw = [] if not self.raw else ["SGLANG_RETURN_ORIGINAL_LOGPROB=1"]
        served = ["env", *raw, self.python, "-m", "sglang.launch_server", "--model-path", self.model]
        address = ["--served-model-name", self.name, "--host", "127.0.0.1", "--port", str(self.port)]
        plain = ["--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"]
        quick = ["--disable-overlap-schedule", "--disable-cuda-graph", "--skip-server-warmup", "--sleep-on-idle"]
        limits = ["--mem-fraction-static", "0.3", "--max-total-tokens", "8192", "--context-length", "1024"]
        return [*served, *address, *plain, *quick, *limits, "--dtype", "float32"]
