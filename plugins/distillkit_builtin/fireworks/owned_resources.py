"""What a run made at Fireworks, written down before it is requested, so that whatever happens it is found again."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit.files.atomic import flush, write_json
from distillkit.files.jsonl import explain_write_errors
from distillkit.roles.plugin import PENDING_CLEANUP
from distillkit_builtin.fireworks.options import Cleanup

NAME = "fireworks"
"""Prefix of the records' file names."""
STUDENT_FILE = "fireworks.json"
RECORD_KEYS = ("base_url", "trainers", "deployments", "woken")


@dataclass(slots=True)
class OwnedResources:
    """The trainers and deployments that this run made, or woke from zero replicas, and has not released yet.

    `pending_cleanup/fireworks.<hash of base_url>.json` in the run's directory is the record of the same, as long as
    there is anything. A run that was killed leaves it behind. `--resume` takes it up, goes on with what still runs, and
    cleans up all of it in the end; a new run in that directory cleans it up before it makes anything.
    """

    run_dir: Path | None
    base_url: str
    trainers: dict[str, Literal["delete", "keep"]] = field(default_factory=dict)
    deployments: dict[str, Cleanup] = field(default_factory=dict)
    woken: list[str] = field(default_factory=list)
    """Ids in `deployments` that existed before the run, scaled to zero."""
    student: dict[str, str] = field(default_factory=dict)
    """`trainer` and `deployment`: the ids that the student used last, whether they still exist or not."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def at(cls, run_dir: Path | None, base_url: str) -> "OwnedResources":
        """What the run in `run_dir` has at one service; nothing for a new run."""
        found = cls(run_dir, base_url)
        known = _read(found.path, *RECORD_KEYS)
        if known is not None:
            found.trainers, found.deployments, found.woken = known["trainers"], known["deployments"], known["woken"]
        student = None if run_dir is None else _read(run_dir / STUDENT_FILE, "base_url", "student")
        if student is not None and student["base_url"] == base_url:
            found.student = student["student"]
        return found

    @classmethod
    def read(cls, record: Path, run_dir: Path) -> "OwnedResources":
        """What one of `record_paths` says. Raises InputError, with what to do, if it cannot be read."""
        known = _read(record, *RECORD_KEYS)
        return cls(run_dir, "") if known is None else cls.at(run_dir, known["base_url"])

    @property
    def path(self) -> Path | None:
        """Its record; each service has one of its own, since one run may use several. None: nothing is written."""
        if self.run_dir is None:
            return None
        digest = hashlib.sha256(self.base_url.encode()).hexdigest()[:8]
        return self.run_dir / PENDING_CLEANUP / f"{NAME}.{digest}.json"

    @property
    def summary(self) -> str:
        """All trainer jobs and deployments by name, for a message."""
        named = [*(f"trainer job {job}" for job in self.trainers), *(f"deployment {name}" for name in self.deployments)]
        return ", ".join(named)

    def add_trainer(self, job: str, cleanup: Literal["delete", "keep"]) -> None:
        """Record a trainer job, before it is requested. Raises RunFailedError if that cannot be written."""
        with self._lock:
            self.trainers[job] = cleanup
            self._write()

    def add_deployment(self, identifier: str, cleanup: Cleanup) -> None:
        """Record a deployment, before it is requested. Raises RunFailedError if that cannot be written."""
        with self._lock:
            self.deployments[identifier] = cleanup
            self._write()

    def add_woken(self, identifier: str, cleanup: Cleanup) -> None:
        """Record a deployment that has no replicas, before it gets some: it is never deleted, at most put to sleep."""
        with self._lock:
            if identifier not in self.deployments:
                self.woken.append(identifier)
                self.deployments[identifier] = "keep" if cleanup == "keep" else "scale_to_zero"
            self._write()

    def mark_released(self, identifier: str) -> None:
        """Take out a trainer or deployment that costs nothing any more."""
        with self._lock:
            self.trainers.pop(identifier, None)
            self.deployments.pop(identifier, None)
            self.woken = [name for name in self.woken if name != identifier]
            self._write()

    def leave_to_user(self) -> None:
        """Take out what is left, which was to be kept: from now on it is the user's."""
        with self._lock:
            self.trainers, self.deployments, self.woken = {}, {}, []
            self._write()

    def record_student(self, trainer: str, deployment: str) -> None:
        """Write down what the student uses, for a resume after everything was released."""
        self.student = {"trainer": trainer, "deployment": deployment}
        if self.run_dir is not None:
            _replace(self.run_dir / STUDENT_FILE, {"base_url": self.base_url, "student": dict(self.student)})

    def _write(self) -> None:
        if self.path is None:
            return
        record: Mapping[str, JsonValue] = {
            "base_url": self.base_url,
            "trainers": dict(self.trainers),
            "deployments": dict(self.deployments),
            "woken": list(self.woken),
        }
        if self.trainers or self.deployments:
            _replace(self.path, record)
            return
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another record is there, or none ever was
            self.path.parent.rmdir()


def record_paths(run_dir: Path) -> list[Path]:
    """The records that are there, one a service, in a fixed order."""
    return sorted((run_dir / PENDING_CLEANUP).glob(f"{NAME}.*.json"))


def _read(path: Path | None, *keys: str) -> dict[str, Any] | None:
    """A record's content, None if there is no record. Raises InputError, with what to do, if it cannot be read."""
    if path is None or not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in keys if key not in found]
    except (OSError, ValueError, TypeError) as error:
        missing = [str(error)]
    if missing:
        raise InputError(
            f"{path} says what a run has at Fireworks, and cannot be read ({missing[0]}). What it names may still cost "
            "money: look at app.fireworks.ai for trainer jobs and deployments of this run, delete those that nobody "
            "needs, and then remove the file"
        )
    return dict(found)


def _replace(path: Path, content: Mapping[str, JsonValue]) -> None:
    with explain_write_errors(path):
        if not path.parent.is_dir():
            path.parent.mkdir()
            flush(path.parent.parent)
        write_json(path, content)
