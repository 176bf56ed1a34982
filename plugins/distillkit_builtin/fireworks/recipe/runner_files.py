"""The files of `RunnerConfig`: what the run is doing, for whatever started it. As the cookbook's runner writes them."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from distillkit.files.atomic import write_json
from distillkit_builtin.fireworks.recipe.config import RunnerConfig

PROGRESS = "type.googleapis.com/gateway.JobProgress"
OK, CANCELLED, INVALID_ARGUMENT, FAILED_PRECONDITION = 0, 1, 3, 9
"""Status codes of gRPC."""


@dataclass(slots=True)
class RunnerFiles:
    """Paths of the files; None: not written. What cannot be written raises OSError."""

    status_path: str | None = None
    metadata_path: str | None = None
    metrics_path: str | None = None
    output_model_path: str | None = None
    _tokens: int = 0
    _accelerator: tuple[str, int] = ("UNKNOWN", 1)
    _started: float | None = None

    @classmethod
    def of(cls, config: RunnerConfig) -> "RunnerFiles":
        """The paths that the config gives, else the environment."""
        return cls(
            config.status_file or os.environ.get("COOKBOOK_STATUS_FILE"),
            config.metadata_file or os.environ.get("COOKBOOK_METADATA_FILE"),
            config.metrics_file or os.environ.get("COOKBOOK_METRICS_FILE"),
            config.output_model_path or os.environ.get("COOKBOOK_OUTPUT_MODEL_PATH"),
        )

    def begin(self, accelerator: str | None, count: int | None) -> None:
        """Note that training starts on `count` of `accelerator`, for the metadata."""
        self._accelerator = (accelerator or "UNKNOWN", count or 1)
        self._started = time.monotonic()

    def status(self, message: str, *, step: int = 0, of: int = 0, code: int = OK) -> None:
        """Write the status file: the phase of the run and its progress."""
        payload: dict[str, JsonValue] = {"code": code, "message": message}
        if of:
            payload["details"] = [{"@type": PROGRESS, "percent": 100 * step // of}]
        _replace(self.status_path, payload)

    def failed(self, error: str, *, step: int = 0, of: int = 0, cancelled: bool = False) -> None:
        """Write a status that says that the run failed or was cancelled."""
        code = CANCELLED if cancelled else FAILED_PRECONDITION
        self.status("Training run cancelled" if cancelled else error, step=step, of=of, code=code)

    def refused(self, error: str) -> None:
        """What the user gave is wrong; nothing was started."""
        self.status(error, code=INVALID_ARGUMENT)

    def metadata(self, tokens: int) -> None:
        """Add trained tokens, and write the totals."""
        self._tokens += tokens
        kind, count = self._accelerator
        seconds: dict[str, JsonValue] = {}
        if self._started is not None:
            seconds[kind] = round((time.monotonic() - self._started) * count)
        _replace(
            self.metadata_path,
            {"metadata": {"tokens": self._tokens, "accelerator_seconds": seconds, "serverless": False}},
        )

    def metrics(self, line: str) -> None:
        """Append one line of metrics."""
        if self.metrics_path:
            path = Path(self.metrics_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line)

    def output_model(self, model: str, checkpoint: str, job: str) -> None:
        """Write the model file: the name of the model that the final weights were promoted to."""
        _replace(self.output_model_path, {"model_id": model, "checkpoint": checkpoint, "job_id": job})


def _replace(path: str | None, payload: Mapping[str, JsonValue]) -> None:
    """Write a file, whole or not at all."""
    if path:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, payload, indent=None)
