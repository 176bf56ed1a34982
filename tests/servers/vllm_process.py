"""A real vLLM server in a process of its own, on loopback, to be started, killed and started again."""

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

TOP = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("DISTILLKIT_VLLM_PYTHON", TOP / ".venv-vllm/bin/python"))
START_SECONDS = 400.0
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # an idle server must not spin on the cores that train
}
LORA = ("--enable-lora", "--max-lora-rank", "16", "--max-loras", "2")


@dataclass
class VllmProcess:
    """`model` served as `smol`; float32, so that its numbers can be compared closely with the local backend's."""

    model: Path
    log: Path
    arguments: tuple[str, ...] = ()
    dtype: str = "float32"
    port: int = field(default_factory=lambda: free_port())
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """As `base_url` wants it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start, and return at once."""
        # The module and not `vllm serve`: vllm-cpu's command looks for the metadata of a package called vllm.
        command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", self.model]
        command += [
            "--served-model-name",
            "smol",
            "--dtype",
            self.dtype,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        command += ["--max-model-len", "1024", "--max-num-seqs", "16", "--enforce-eager", "--max-logprobs", "20"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *self.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENVIRONMENT},
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers. Raises RuntimeError with the end of its log if it does not."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process is not None and self.process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise RuntimeError(f"vLLM did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        """End it and its workers as the out-of-memory killer would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
