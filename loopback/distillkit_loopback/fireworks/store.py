"""The models that the service knows by name, and the folder in which it keeps what trainers save."""

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from distillkit_loopback.fireworks.messages import Refused, not_found
from distillkit_loopback.hf.causal_lm import CausalLM

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
Models = Mapping[str, str | Path] | Callable[[str], str | Path | None]
"""Model names to local directories or hub names; a function gives None for a name that the service does not have."""


class Store:
    """Models by name, copies of them in memory, and a folder of checkpoints.

    Everything is float32 on the CPU, so that runs are the same to the bit.
    """

    def __init__(self, models: Models, folder: Path) -> None:
        """`folder` exists, is empty, and goes when the service closes."""
        self._find = models if callable(models) else models.get
        self._promoted: dict[str, Path] = {}
        self._folder = folder
        self._lock = threading.Lock()
        self._frozen: dict[Path, CausalLM] = {}

    def path(self, name: str) -> Path:
        """Where a model or an adapter lies. Raises Refused if the service has none of that name."""
        found = self._promoted.get(name) or self._find(name)
        if found is None:
            raise not_found(f"model {name!r}")
        return Path(found)

    def add(self, name: str, path: Path) -> None:
        """Add a promoted model."""
        self._promoted[name] = path

    def load(self, name: str) -> CausalLM:
        """A copy of one's own, with the tokenizer that all copies share."""
        return CausalLM.load(str(self.path(name)), self.frozen(name).tokenizer)

    def frozen(self, name: str) -> CausalLM:
        """The one copy that nobody changes."""
        path = self.path(name)
        with self._lock:
            if path not in self._frozen:
                self._frozen[path] = CausalLM.load(str(path))
            return self._frozen[path]

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
