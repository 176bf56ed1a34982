"""What a device has, and what a container leaves of it."""

from pathlib import Path

import psutil
import pytest
import torch

from distillkit import PlannedDevice, Rank
from distillkit_builtin.local.memory import room

GIB = 2**30


def group(folder: Path, **files: int | str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def member(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "membership"
    path.write_text(text)
    return path


def test_limits_of_a_group_and_of_those_above_it_count(tmp_path: Path) -> None:
    group(tmp_path, memory__max="max", memory__current=5)
    group(tmp_path / "pod", memory__max=8 * GIB, memory__current=3 * GIB, memory__stat=f"anon 7\ninactive_file {GIB}")
    group(tmp_path / "pod" / "box", memory__max=4 * GIB, memory__current=GIB)
    found = list(room.container_limits(tmp_path, member(tmp_path, "0::/pod/box\n")))
    assert found == [(4 * GIB, GIB), (8 * GIB, 2 * GIB)]


def test_inside_a_container_the_groups_files_stand_at_the_root(tmp_path: Path) -> None:
    names = {"memory__limit_in_bytes": 6 * GIB, "memory__usage_in_bytes": GIB}
    group(tmp_path / "memory", **names, memory__stat=f"cache 1\ntotal_inactive_file {GIB // 2}")
    text = "9:name=systemd:/\n4:cpu,memory:/docker/not/seen/here\n0::/\n"
    assert list(room.container_limits(tmp_path, member(tmp_path, text))) == [(6 * GIB, GIB // 2)]


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert list(room.container_limits(tmp_path, tmp_path / "nowhere")) == []
    assert list(room.container_limits(tmp_path, member(tmp_path, "0::/gone\n"))) == []


def test_the_smaller_of_machine_and_container_is_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = psutil.virtual_memory().total
    group(tmp_path, memory__max=total // 4, memory__current=total // 8)
    monkeypatch.setattr(room, "CGROUPS", tmp_path)
    monkeypatch.setattr(room, "SELF", member(tmp_path, "0::/\n"))
    found = room.host_memory(Rank())
    assert (found.total_bytes, found.label) == (total // 4, "this container's memory (cgroup)")
    assert found.free_bytes <= total // 4 - total // 8
    each = room.host_memory(Rank(1, 4, 1, 2))
    assert each.total_bytes == total // 4 // 2
    assert each.label.endswith("a share of 2 processes")


def test_a_planned_card_takes_the_place_of_what_is_here() -> None:
    card = PlannedDevice("h100-80gb", 80 * GIB)
    found = room.device_memory(torch.device("cuda"), Rank(), card)
    assert (found.device, found.label, found.total_bytes) == ("cuda", "h100-80gb, planned", 80 * GIB)
    assert found.free_bytes < found.total_bytes
    assert room.device_memory(torch.device("cpu"), Rank(), card).device == "cpu"


def test_what_an_apple_gpu_is_advised_to_hold_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 20)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 30)
    found = room.device_memory(torch.device("mps"), Rank(), None)
    assert (found.total_bytes, found.free_bytes, found.is_limit) == (20, 0, False)
    assert found.shown_total.startswith("about ")
