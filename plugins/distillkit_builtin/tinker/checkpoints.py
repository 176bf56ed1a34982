"""The student's checkpoints: the server keeps them, we keep the record of what they are called.

A name is never used twice, since a server answers a name that exists with a conflict, which the SDK repeats for five
minutes. What a run saved stays at the server until `checkpoint_ttl`, also when its record is gone.
"""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from distillkit.errors import InputError, RunFailedError
from distillkit.files.atomic import write_json
from distillkit_builtin.tinker.options import TinkerStudentOptions
from distillkit_builtin.tinker.sdk import sdk_call, sdk_version
from distillkit_builtin.tinker.trainer_connection import TrainerConnection

RECORD = "tinker.json"
"""In a checkpoint's folder: what the server calls it."""
FORMAT = 1


def new_name(prefix: str) -> str:
    """A name that no checkpoint has had, here or in another run."""
    return f"{prefix}-{secrets.token_hex(4)}"


@dataclass(slots=True)
class Checkpoints:
    """Saving and loading weights and optimizer at the server."""

    options: TinkerStudentOptions
    connection: TrainerConnection

    async def save(self, path: Path, version: int) -> None:
        """Save weights and optimizer, and write down what the server calls them. Raises RunFailedError."""
        client, options = await self.connection.ensure(), self.options
        name, ttl = new_name(f"step-{version}"), options.checkpoint_ttl

        def call() -> Any:  # noqa: ANN401 - the SDK's future
            return client.save_state(name, ttl_seconds=ttl) if ttl else client.save_state(name)

        saved = await sdk_call(f"saving checkpoint {name}", options.timeouts.step, call)
        record: dict[str, JsonValue] = {
            "format": FORMAT,
            "checkpoint": str(saved.path),
            "model": options.model,
            "lora_rank": options.lora_rank,
            "version": version,
            "sdk": sdk_version(),
        }
        write_json(path / RECORD, record)

    async def load(self, path: Path) -> int:
        """Go on with what `save` wrote; returns its version.

        Raises:
            InputError: if another student wrote it.
            RunFailedError: if the server does not load it, such as one that it has deleted since.
        """
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise InputError(f"{path}: has format {record['format']}, this version reads {FORMAT}")
        for key, ours in (("model", self.options.model), ("lora_rank", self.options.lora_rank)):
            if record[key] != ours:
                raise InputError(f"{path}: was saved with student.{key} {record[key]!r}, the config says {ours!r}")
        try:
            await self.connection.load(record["checkpoint"])
        except RunFailedError as error:
            raise RunFailedError(
                f"{error}; the checkpoint is kept by the server alone ({self.options.root}): has it been deleted, or "
                "is it another server's?"
            ) from error
        return int(record["version"])
