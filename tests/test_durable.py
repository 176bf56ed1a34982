"""What has its final name is whole, after a power failure too."""

import json
import os
from pathlib import Path

import pytest

from distillkit.durable import write_json


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
