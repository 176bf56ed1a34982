"""What a run made at Fireworks, written down before it is asked for, so that whatever happens it is found again."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

FILE = "fireworks.json"
Cleanup = Literal["scale_to_zero", "delete", "keep"]


@dataclass(slots=True)
class Belongings:
    """The trainers and deployments that this run made, or woke from zero replicas, and has not let go of yet.

    `fireworks.json` in the run's directory holds the same. A run that was killed leaves it behind; `--resume` takes it
    up, goes on with what still runs, and cleans up all of it in the end.
    """

    path: Path | None
    base_url: str
    trainers: dict[str, Literal["delete", "keep"]] = field(default_factory=dict)
    deployments: dict[str, Cleanup] = field(default_factory=dict)
    woken: list[str] = field(default_factory=list)
    """Those of `deployments` that were there before, without replicas."""
    student: dict[str, str] = field(default_factory=dict)
    """`trainer` and `deployment`: the ids that the student used last, whether they still exist or not."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def at(cls, run_dir: Path | None, base_url: str) -> "Belongings":
        """What the run in `run_dir` has; nothing for a new run, or for one that used another service."""
        path = None if run_dir is None else run_dir / FILE
        found = cls(path, base_url)
        if path is not None and path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["base_url"] == base_url:
                found.trainers, found.deployments = known["trainers"], known["deployments"]
                found.woken, found.student = known["woken"], known["student"]
        return found

    def add_trainer(self, job: str, cleanup: Literal["delete", "keep"]) -> None:
        """Before it is asked for."""
        with self._lock:
            self.trainers[job] = cleanup
            self._write()

    def add_deployment(self, identifier: str, cleanup: Cleanup) -> None:
        """Before it is asked for."""
        with self._lock:
            self.deployments[identifier] = cleanup
            self._write()

    def add_woken(self, identifier: str, cleanup: Cleanup) -> None:
        """Before a deployment that has no replicas gets some: it is never deleted, at most put back to sleep."""
        with self._lock:
            if identifier not in self.deployments:
                self.woken.append(identifier)
                self.deployments[identifier] = "keep" if cleanup == "keep" else "scale_to_zero"
            self._write()

    def forget(self, identifier: str) -> None:
        """It costs nothing any more."""
        with self._lock:
            self.trainers.pop(identifier, None)
            self.deployments.pop(identifier, None)
            self.woken = [name for name in self.woken if name != identifier]
            self._write()

    def note_student(self, trainer: str, deployment: str) -> None:
        """What the student uses."""
        with self._lock:
            self.student = {"trainer": trainer, "deployment": deployment}
            self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        held: Mapping[str, JsonValue] = {
            "base_url": self.base_url,
            "trainers": dict(self.trainers),
            "deployments": dict(self.deployments),
            "woken": list(self.woken),
            "student": dict(self.student),
        }
        aside = self.path.with_name(f".{FILE}.new")
        aside.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
        aside.replace(self.path)
