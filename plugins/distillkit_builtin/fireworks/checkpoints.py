"""The student's checkpoints: the trainer keeps them, we keep the record of what they are called and where they are."""

import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit.files.atomic import write_json
from distillkit_builtin.fireworks.options import FireworksStudentOptions
from distillkit_builtin.fireworks.trainer_connection import TrainerConnection
from distillkit_builtin.fireworks.trainer_watch import TrainerWatch

RECORD = "fireworks.json"
"""In a checkpoint's folder: what the trainer calls it."""
FORMAT = 1


@dataclass(slots=True)
class Checkpoints:
    """Saving and loading the whole state of a trainer."""

    options: FireworksStudentOptions
    connection: TrainerConnection
    watch: TrainerWatch
    restore: Callable[[], Awaitable[object]] | None = None
    """Gives a new model the weights and the optimizer that the student has now; None: they are saved nowhere."""

    async def save(self, path: Path, version: int) -> None:
        """Save weights and optimizer; write down what the trainer calls them, which may be another name than ours."""
        name = f"step-{version:06d}-{secrets.token_hex(3)}"
        saved = await self.watch.wait_for_result(
            f"saving checkpoint {name}", lambda: self.connection.client.save_state(name)
        )
        self.restore = partial(self._load_state, saved.path, self.connection.trainer_job)
        record: dict[str, JsonValue] = {
            "format": FORMAT,
            "checkpoint": saved.path,
            "trainer_job_id": self.connection.trainer_job,
            "deployment_id": self.connection.deployment,
            "model": self.options.model,
            "lora_rank": self.options.lora_rank,
            "version": version,
        }
        write_json(path / RECORD, record)

    async def load(self, path: Path) -> int:
        """Take back what `save` wrote; returns its version. Raises InputError if another student wrote it."""
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise InputError(f"{path}: has format {record['format']}, this version reads {FORMAT}")
        for key, ours in (("model", self.options.model), ("lora_rank", self.options.lora_rank)):
            if record[key] != ours:
                raise InputError(f"{path}: was saved with student.{key} {record[key]!r}, the config says {ours!r}")
        await self._load_state(record["checkpoint"], record["trainer_job_id"])
        return int(record["version"])

    async def start(self) -> bool:
        """Load what `init_from_checkpoint` or `warm_start_from_adapter` names; whether there was anything."""
        checkpoint, adapter = self.options.init_from_checkpoint, self.options.warm_start_from_adapter
        if checkpoint is not None:
            job, _, name = checkpoint.rpartition(":")
            await self._load_state(name, job or self.connection.trainer_job)
        elif adapter is not None:
            await self.watch.wait_for_result(
                f"loading adapter {adapter}", lambda: self.connection.client.load_adapter(adapter)
            )
        self.restore = self.start
        return checkpoint is not None or adapter is not None

    async def _load_state(self, checkpoint: str, job: str) -> None:
        client = self.connection.client
        source = None if job == self.connection.trainer_job else job

        def submit() -> Any:  # noqa: ANN401 - the SDK's future
            return client.load_state_with_optimizer(client.resolve_checkpoint_path(checkpoint, source_job_id=source))

        await self.watch.wait_for_result(f"loading checkpoint {checkpoint!r} of trainer {job}", submit)
        self.restore = partial(self._load_state, checkpoint, job)
