"""Who this process is, as torchrun put it into the environment."""

import ast
from pathlib import Path

import pytest

import distillkit
from distillkit.errors import InputError
from distillkit.ranks import ONLY, Rank

TOP = Path(distillkit.__file__).parents[1]


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    for name in ("LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_torchrun_a_process_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Rank.from_environment() == ONLY
    assert ONLY.runs_engine
    assert ONLY.launch_command == ("distillkit",)


def test_torchruns_environment_says_which_process_this_is(torchrun: pytest.MonkeyPatch) -> None:
    rank = Rank.from_environment()
    assert rank == Rank(index=3, count=4, local_index=1, local_count=4)
    assert not rank.runs_engine
    assert rank.launch_command == ("torchrun", "--nproc-per-node", "4", "-m", "distillkit")
    torchrun.setenv("LOCAL_WORLD_SIZE", "2")
    assert Rank.from_environment().launch_command[2] == "2"


def test_of_several_hosts_it_says_which_and_where_they_meet(torchrun: pytest.MonkeyPatch) -> None:
    given = {"LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"}
    for name, value in {**given, "MASTER_ADDR": "first", "MASTER_PORT": "29400"}.items():
        torchrun.setenv(name, value)
    rank = Rank.from_environment()
    assert (rank.host_index, rank.host_count, rank.meets_at) == (1, 2, ("first", "29400"))
    words = "torchrun --nnodes 2 --node-rank 1 --master-addr first --master-port 29400 --nproc-per-node 2 -m distillkit"
    assert " ".join(rank.launch_command) == words


def test_half_of_an_environment_is_refused(torchrun: pytest.MonkeyPatch) -> None:
    torchrun.delenv("LOCAL_RANK")
    with pytest.raises(InputError, match="torchrun sets all of RANK, WORLD_SIZE, LOCAL_RANK"):
        Rank.from_environment()


def test_the_environment_is_read_where_a_process_begins_and_nowhere_else() -> None:
    readers = {
        path.relative_to(TOP).as_posix()
        for package in (TOP / "distillkit", TOP / "plugins")
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr == "from_environment")
        or (isinstance(node, ast.Constant) and node.value == "WORLD_SIZE")
    }
    assert readers == {"distillkit/ranks.py", "distillkit/api.py", "distillkit/cli/reporting.py"}
