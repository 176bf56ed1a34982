"""The models that the service knows by name, and the folder in which it keeps what trainers save."""

import re
import threading
from collections.abc import Mapping
from pathlib import Path

import torch

from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.device import Device
from distillkit_loopback.fireworks.messages import Refused, not_found

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Store:
    """Model strings to local directories, networks read from them, and a folder of checkpoints.

    Everything is float32 on the CPU, so that runs are the same to the bit.
    """

    def __init__(self, models: Mapping[str, str | Path], folder: Path) -> None:
        """`folder` exists, is empty, and goes when the service closes."""
        self._models = {name: Path(path) for name, path in models.items()}
        self._folder = folder
        self._device = Device(torch.device("cpu"))
        self._lock = threading.Lock()
        self._frozen: dict[str, CausalLM] = {}
        self._tokenizers: dict[str, HFTokenizer] = {}

    def knows(self, name: str) -> bool:
        """Whether the service has this model."""
        return name in self._models

    def path(self, name: str) -> Path:
        """Where a model or an adapter lies. Raises Refused if there is none of that name."""
        if name not in self._models:
            raise not_found(f"model {name!r}")
        return self._models[name]

    def add(self, name: str, path: Path) -> None:
        """A promoted model."""
        self._models[name] = path

    def load(self, name: str) -> CausalLM:
        """A copy of one's own."""
        return CausalLM.load(str(self.path(name)), self._device, torch.float32, torch.float32)

    def frozen(self, name: str) -> CausalLM:
        """The one copy that nobody changes."""
        with self._lock:
            if name not in self._frozen:
                self._frozen[name] = self.load(name)
            return self._frozen[name]

    def tokenizer(self, name: str) -> HFTokenizer:
        """The model's tokenizer."""
        with self._lock:
            if name not in self._tokenizers:
                self._tokenizers[name] = HFTokenizer.load(str(self.path(name)))
            return self._tokenizers[name]

    def state(self, job: str, name: str) -> Path:
        """Where a job keeps the training state of that name."""
        return self._place(job, "states", name)

    def snapshot(self, job: str, name: str) -> Path:
        """Where a job keeps the sampling weights of that name."""
        return self._place(job, "snapshots", name)

    def _place(self, job: str, kind: str, name: str) -> Path:
        if not FILE_NAME.fullmatch(name):
            raise Refused(400, f"{name!r} cannot name a checkpoint")
        return self._folder / job / kind / name
