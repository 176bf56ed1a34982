"""What runs have saved: found, listed, kept for a time, deleted. On disk, so that another service finds it too."""

import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import JsonValue

from distillkit_loopback.tinker.lora_settings import LoraSettings
from distillkit_loopback.transport.messages import Body
from distillkit_loopback.transport.routes import Refused

NAME = re.compile(r"[a-zA-Z0-9_-]{1,255}")
PATH = re.compile(r"tinker://([^/]+)/(?:(weights|sampler_weights|external_weights)/)?([^/]+)")
KINDS = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}
"""What stands in a path, and what listings call it."""
DONE = "checkpoint.json"
SHORTEST_TTL, LONGEST_TTL = 3600, 10 * 365 * 86400
"""Seconds."""


class Saving(Body):
    """What is known of a checkpoint beside its weights."""

    base_model: str
    lora: LoraSettings
    time: datetime
    expires_at: datetime | None = None
    ephemeral: bool = False
    """A snapshot to sample from, which ends with its session."""
    user_metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint."""

    run: str
    kind: str
    name: str
    folder: Path
    saving: Saving

    @property
    def path(self) -> str:
        """`tinker://RUN/KIND/NAME`."""
        return f"tinker://{self.run}/{self.kind}/{self.name}"

    def public(self) -> JsonValue:
        """As listings have it."""
        expires = self.saving.expires_at
        return {
            "checkpoint_id": f"{self.kind}/{self.name}",
            "checkpoint_type": KINDS[self.kind],
            "time": self.saving.time.isoformat(),
            "tinker_path": self.path,
            "size_bytes": sum(each.stat().st_size for each in self.folder.iterdir()),
            "expires_at": None if expires is None else expires.isoformat(),
            "user_metadata": dict(self.saving.user_metadata) if self.saving.user_metadata else None,
        }


class Checkpoints:
    """The checkpoints in a folder; a name that is being saved is taken. Any thread may call."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists; what an earlier service saved there is known."""
        self._folder = folder
        self._lock = threading.Lock()
        self._reserved: set[Path] = set()

    def reserve(self, run: str, kind: str, name: str, *, overwrite: bool = False) -> Path:
        """The folder of a new checkpoint. Raises Refused for no name, 409 for a name that is taken."""
        if not NAME.fullmatch(name):
            raise Refused(422, f"{name!r} cannot name a checkpoint: letters, digits, _ and - alone")
        folder = self._folder / run / kind / name
        with self._lock:
            if folder in self._reserved or (folder.exists() and not overwrite):
                raise Refused(409, f"Checkpoint '{name}' already exists for model '{run}'")
            self._reserved.add(folder)
        return folder

    def empty(self, folder: Path) -> None:
        """What is overwritten goes before it is written again."""
        shutil.rmtree(folder, ignore_errors=True)

    def release(self, folder: Path, saving: Saving | None) -> None:
        """The save has ended; None: without a checkpoint, of which nothing is left."""
        if saving is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            (folder / DONE).write_text(saving.model_dump_json(), encoding="utf-8")
        with self._lock:
            self._reserved.discard(folder)

    def all(self, run: str | None = None) -> Iterator[Checkpoint]:
        """Those of a run, or of all, oldest first; what has expired is deleted."""
        found = [self._read(each.parent) for each in self._folder.glob(f"{run or '*'}/*/*/{DONE}")]
        for checkpoint in sorted(found, key=lambda each: (each.saving.time, each.path)):
            if _expired(checkpoint.saving):
                self.delete(checkpoint)
            else:
                yield checkpoint

    def find(self, path: str, *kinds: str) -> Checkpoint:
        """That of a `tinker://` path, which may leave out its kind. Raises Refused: 400 for no path, 404."""
        found = PATH.fullmatch(path)
        if found is None or (found[2] or kinds[0]) not in kinds:
            raise Refused(400, f"{path!r} is not of the form tinker://model_id/{kinds[0]}/checkpoint_id")
        return self.get(found[1], found[2] or kinds[0], found[3])

    def get(self, run: str, kind: str, name: str) -> Checkpoint:
        """Raises Refused with 404 if there is none, or none any more."""
        folder = self._folder / run / kind / name
        if folder.parent.parent.parent != self._folder or not (folder / DONE).exists():
            raise Refused(404, f"Checkpoint not found: {run}/{name}")
        checkpoint = self._read(folder)
        if _expired(checkpoint.saving):
            self.delete(checkpoint)
            raise Refused(404, f"Checkpoint not found: {run}/{name}")
        return checkpoint

    def delete(self, checkpoint: Checkpoint) -> None:
        """Nothing of it is left."""
        shutil.rmtree(checkpoint.folder, ignore_errors=True)

    def keep(self, checkpoint: Checkpoint, ttl_seconds: int | None) -> None:
        """Have it expire so long from now, or never. Raises Refused for a time that is too short or too long."""
        saving = checkpoint.saving.model_copy(update={"expires_at": expiry(ttl_seconds)})
        (checkpoint.folder / DONE).write_text(saving.model_dump_json(), encoding="utf-8")

    def _read(self, folder: Path) -> Checkpoint:
        run, kind, name = folder.relative_to(self._folder).parts
        saving = Saving.model_validate_json((folder / DONE).read_text(encoding="utf-8"))
        return Checkpoint(run, kind, name, folder, saving)


def expiry(ttl_seconds: int | None) -> datetime | None:
    """When what is saved now expires; None: never. Raises Refused for a time that is too short or too long."""
    if ttl_seconds is None:
        return None
    if not SHORTEST_TTL <= ttl_seconds <= LONGEST_TTL:
        raise Refused(422, f"ttl_seconds is {ttl_seconds}, not between {SHORTEST_TTL} and {LONGEST_TTL}")
    return datetime.now(UTC) + timedelta(seconds=ttl_seconds)


def _expired(saving: Saving) -> bool:
    return saving.expires_at is not None and saving.expires_at <= datetime.now(UTC)


def listing(checkpoints: Iterator[Checkpoint]) -> Mapping[str, JsonValue]:
    """The response to a request for checkpoints."""
    return {"checkpoints": [each.public() for each in checkpoints]}
