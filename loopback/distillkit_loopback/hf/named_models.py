"""The models that a service knows by name, and copies of them in memory."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.transport.routes import not_found

Models = Mapping[str, str | Path] | Callable[[str], str | Path | None]
"""Model names to local directories or hub names; a function gives None for a name that the service does not have."""


class NamedModels:
    """Models by name, in float32 on the CPU, so that runs are the same to the bit."""

    def __init__(self, models: Models) -> None:
        """Nothing is read yet."""
        self._find = models if callable(models) else models.get
        self._added: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._frozen: dict[Path, CausalLM] = {}

    def path(self, name: str) -> Path:
        """Where a model or an adapter lies. Raises Refused if the service has none of that name."""
        found = self._added.get(name) or self._find(name)
        if found is None:
            raise not_found(f"model {name!r}")
        return Path(found)

    def add(self, name: str, path: Path) -> None:
        """Know one model more."""
        self._added[name] = path

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
