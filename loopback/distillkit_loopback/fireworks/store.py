"""The folder in which the service keeps what trainers save, and the models that it knows."""

import re
from pathlib import Path

from distillkit_loopback.hf.named_models import Models, NamedModels
from distillkit_loopback.transport.routes import Refused

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Store(NamedModels):
    """Models by name, promoted ones too, and a folder of checkpoints."""

    def __init__(self, models: Models, folder: Path) -> None:
        """`folder` exists, is empty, and goes when the service closes."""
        super().__init__(models)
        self._folder = folder

    def state(self, job: str, name: str) -> Path:
        """Where a job keeps the training state of that name."""
        return self._location(job, "states", name)

    def snapshot(self, job: str, name: str) -> Path:
        """Where a job keeps the sampling weights of that name."""
        return self._location(job, "snapshots", name)

    def _location(self, job: str, kind: str, name: str) -> Path:
        if not FILE_NAME.fullmatch(name):
            raise Refused(400, f"{name!r} cannot name a checkpoint")
        return self._folder / job / kind / name
