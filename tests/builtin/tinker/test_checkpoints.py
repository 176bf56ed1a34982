"""What a checkpoint's folder says of what the server keeps, and what is refused of it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillkit.errors import InputError, RunFailedError
from distillkit_builtin.tinker.checkpoints import RECORD, Checkpoints
from distillkit_builtin.tinker.options import TinkerStudentOptions


class Connection:
    """A `TrainerConnection` whose server saves and loads."""

    def __init__(self) -> None:
        self.saved: list[tuple[str, dict[str, Any]]] = []
        self.loaded: list[str] = []
        self.lost = False

    async def ensure(self) -> "Connection":
        return self

    def save_state(self, name: str, **options: Any) -> Any:
        self.saved.append((name, options))
        return SimpleNamespace(path=f"tinker://run/weights/{name}")

    async def load(self, path: str) -> None:
        if self.lost:
            raise RunFailedError(f"loading {path}: HTTP 404: Checkpoint not found")
        self.loaded.append(path)


def checkpoints(connection: Connection, **options: Any) -> Checkpoints:
    values: dict[str, Any] = {"model": "m", "lora_rank": 8, "base_url": "http://there:1/api/v1/", **options}
    return Checkpoints(TinkerStudentOptions(**values), connection)  # type: ignore[arg-type]


async def test_what_was_saved_is_loaded_by_the_servers_name_with_its_version(tmp_path: Path) -> None:
    connection = Connection()
    await checkpoints(connection).save(tmp_path, 7)
    ((name, options),) = connection.saved
    assert name.startswith("step-7-")
    assert options == {}
    assert await checkpoints(connection).load(tmp_path) == 7
    assert connection.loaded == [f"tinker://run/weights/{name}"]


async def test_no_name_comes_twice_also_for_the_same_version(tmp_path: Path) -> None:
    connection = Connection()
    for _ in range(20):
        await checkpoints(connection).save(tmp_path, 7)
    assert len({name for name, _ in connection.saved}) == 20


async def test_a_time_limit_is_sent_where_there_is_one(tmp_path: Path) -> None:
    connection = Connection()
    await checkpoints(connection, checkpoint_ttl=7200).save(tmp_path, 1)
    assert connection.saved[0][1] == {"ttl_seconds": 7200}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lora_rank": 4}, r"student\.lora_rank 8, the config says 4"),
        ({"model": "n"}, r"student\.model 'm', the config says 'n'"),
    ],
)
async def test_another_students_checkpoint_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    connection = Connection()
    await checkpoints(connection).save(tmp_path, 1)
    with pytest.raises(InputError, match=said):
        await checkpoints(connection, **changed).load(tmp_path)
    assert not connection.loaded


async def test_a_record_of_another_format_is_refused(tmp_path: Path) -> None:
    await checkpoints(Connection()).save(tmp_path, 1)
    record = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps(record | {"format": 2}))
    with pytest.raises(InputError, match="has format 2, this version reads 1"):
        await checkpoints(Connection()).load(tmp_path)


async def test_one_that_the_server_has_lost_is_said_to_be_there_alone(tmp_path: Path) -> None:
    connection = Connection()
    await checkpoints(connection).save(tmp_path, 1)
    connection.lost = True
    with pytest.raises(
        RunFailedError, match=r"not found; the checkpoint is kept by the server alone \(http://there:1\)"
    ):
        await checkpoints(connection).load(tmp_path)
