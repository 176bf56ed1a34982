"""A real vLLM server on the CPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from servers.server_process import ServerProcess, python_of

TOKENS = "--enable-scale-out"
LORA = ("--enable-lora", "--max-lora-rank", "16", "--max-loras", "2")


@dataclass
class VllmProcess(ServerProcess):
    """`model` served as `smol`; float32, so that its numbers can be compared closely with the local backend's."""

    dtype: str = "float32"

    python: ClassVar[Path] = python_of("vllm")
    environment: ClassVar[Mapping[str, str]] = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_SERVER_DEV_MODE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # an idle server must not spin on the cores that train
    }

    @property
    def url(self) -> str:
        """As `base_url` wants it."""
        return f"{self.root}/v1"

    def command(self) -> list[str | Path]:
        # The module and not `vllm serve`: vllm-cpu's command looks for the metadata of a package called vllm.
        served = [self.python, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model]
        address = ["--served-model-name", "smol", "--host", "127.0.0.1", "--port", str(self.port)]
        limits = ["--max-model-len", "1024", "--max-num-seqs", "16", "--max-logprobs", "20"]
        return [*served, *address, *limits, "--dtype", self.dtype, "--enforce-eager"]
