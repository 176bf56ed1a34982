"""What has its final name is whole, after a power failure too, and what is not what was written is found."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from distillkit.files import atomic as durable
from distillkit.files.atomic import checksums, write_json

CONTENT = bytes(range(200)) * 5


def test_content_reaches_the_disk_before_its_name_and_the_name_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def replaced(path: Path, target: Path) -> Path:
        done.append(f"rename to {target.name}")
        return replace(path, target)

    def flushed(handle: int) -> None:
        done.append(f"flush {Path(f'/proc/self/fd/{handle}').readlink().name}")
        fsync(handle)

    monkeypatch.setattr(Path, "replace", replaced)
    monkeypatch.setattr(os, "fsync", flushed)
    write_json(tmp_path / "held.json", {"job": "a"})
    assert done == ["flush .held.json.new", "rename to held.json", f"flush {tmp_path.name}"]
    assert json.loads((tmp_path / "held.json").read_text()) == {"job": "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["held.json"]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "PIECE", 64)
    monkeypatch.setattr(durable, "BLOCK", 24)


def sums(folder: Path, content: bytes) -> dict[str, str]:
    (folder / "student").mkdir(exist_ok=True)
    (folder / "student" / "weights").write_bytes(content)
    (folder / "sums.json").write_text("{}")
    return checksums(folder, "sums.json")


@pytest.mark.usefixtures("small_pieces")
def test_files_are_known_by_their_path_and_one_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    found = sums(tmp_path, CONTENT)
    assert found.keys() == {"empty", "student/weights"}
    assert all(len(digest) == 128 for digest in found.values())
    assert found == checksums(tmp_path, "sums.json")


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:700] + b"!" + content[701:],
        lambda content: content[:-1],
        lambda content: content[:-104],  # to the end of a piece
        lambda content: content + b"\0",
        lambda content: content[64:128] + content[:64] + content[128:],  # two pieces change places
        lambda content: b"",
    ],
)
def test_what_changed_has_another_digest(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    before = sums(tmp_path, CONTENT)["student/weights"]
    assert sums(tmp_path, change(CONTENT))["student/weights"] != before


@pytest.mark.usefixtures("small_pieces")
def test_the_digests_of_a_files_pieces_are_no_file_of_the_same_digest(tmp_path: Path) -> None:
    leaves = b"".join(durable._leaf(tmp_path / "x", i) for i in range(2) if (tmp_path / "x").write_bytes(CONTENT[:128]))
    assert sums(tmp_path, leaves)["student/weights"] != sums(tmp_path, CONTENT[:128])["student/weights"]


@pytest.mark.usefixtures("small_pieces")
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums(tmp_path, CONTENT)

    def unreadable(path: Path, index: int) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(durable, "_leaf", unreadable)
    with pytest.raises(OSError, match="Input/output error"):
        checksums(tmp_path, "sums.json")
