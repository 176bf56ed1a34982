"""Where a run writes: places that are none are found before anything is sampled, and what is the user's stays."""

import builtins
import errno
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distillkit import Registry, RunConfig, run
from distillkit.api import execute
from distillkit.cli.main import app
from distillkit.errors import DistillkitError, InputError
from distillkit.roles.plugin import PENDING_CLEANUP, Leftover
from distillkit.run_directory.directory import holds_run, run_directory
from distillkit.testing import FakeStudent

Make = Callable[..., RunConfig]


class Untouched(FakeStudent):
    """Must not be opened."""

    async def open(self, run: Any) -> None:
        raise AssertionError("the run began")


@pytest.mark.parametrize(
    "path", ["x" * 300, "runs/" + "x" * 300, "/".join(["x" * 200] * 25)], ids=["1", "below", "all"]
)
@pytest.mark.parametrize("arguments", [["check"], ["check", "-q"], ["run"], ["run", "--resume"]], ids=" ".join)
def test_a_path_that_is_too_long_is_wrong_input(
    fake_config: Make, tmp_path: Path, path: str, arguments: list[str]
) -> None:
    config = tmp_path / "config.yaml"
    script = Path(__file__).parents[2] / "helpers" / "fake_plugins.py"
    text = (
        f"data: {fake_config().data.path}\nstudent: fake\nteachers: [{{model: t, scorer: fake}}]\nsinks: []\n"
        f"log_path: {tmp_path / path}\n"
    )
    config.write_text(text)
    command, *flags = arguments
    done = CliRunner().invoke(app, [command, str(config), "-p", str(script), *flags])
    assert done.exit_code == 2, done.output
    assert "cannot be a run's directory: File name too long; choose another log_path or name" in done.output
    assert "Traceback" not in done.output
    assert len(done.stderr) < 500
    with suppress(InputError):  # and no bare OSError
        assert not holds_run(tmp_path / path)


def test_a_directory_below_a_file_is_wrong_input(fake_config: Make, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InputError, match=r"notes is a file; choose another log_path"):
        run(fake_config(log_path=str(tmp_path / "notes/run"), student=Untouched()))


def test_a_place_where_nothing_can_be_made_is_found_before_anything_is_sampled(fake_config: Make) -> None:
    with pytest.raises(InputError, match=r"'/proc/distillkit' cannot be written: .*; .*choose another log_path"):
        run(fake_config(log_path="/proc/distillkit", student=Untouched()))


def test_a_read_only_file_system_is_found_before_anything_is_read(
    fake_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`access(2)` says so of a read-only mount even to root, whom permissions do not bind."""
    first = run(fake_config(train={"save_every": 2}))
    allowed = os.access
    read_only = [first.run_dir]
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in read_only and allowed(path, mode))
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError, match=r"runs/fake cannot be written; make it writable, or choose another"):
            run(fake_config(student=Untouched()), **options)
    read_only[:] = [first.run_dir / "checkpoints"]  # another mount: else it would be found at the first save
    with pytest.raises(InputError, match=r"runs/fake/checkpoints cannot be written"):
        run(fake_config(student=Untouched()), overwrite=True)


@pytest.mark.parametrize("name", [".lock", "run.log", "metrics.jsonl", "samples.jsonl", "config.yaml", "ledger.jsonl"])
def test_a_file_that_cannot_be_written_is_found_before_anything_is_sampled(
    fake_config: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def forbidden(path: object) -> bool:
        return isinstance(path, str | Path) and Path(path).name == name

    def refusing(honest: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Any, mode: Any = "r", *rest: Any, **options: Any) -> Any:
            if forbidden(path) and mode not in ("r", "rb"):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return honest(path, mode, *rest, **options)

        return opened

    monkeypatch.setattr(io, "open", refusing(io.open))
    monkeypatch.setattr(builtins, "open", refusing(builtins.open))
    monkeypatch.setattr(os, "open", refusing(os.open))
    with pytest.raises(DistillkitError) as caught:
        run(fake_config(student=Untouched()))
    message = str(caught.value)
    assert "cannot be written: Read-only file system" in message
    assert "make it writable" in message.lower()
    assert ("runs/fake'" if name == ".lock" else name) in message


def test_overwriting_removes_what_runs_write_and_nothing_else(fake_config: Make) -> None:
    first = run(fake_config(train={"save_every": 1, "keep_last": 5}))
    mine = {"notes.md": "what I found", "plots/loss.svg": "<svg/>", ".git/HEAD": "ref"}
    for name, text in mine.items():
        (first.run_dir / name).parent.mkdir(exist_ok=True)
        (first.run_dir / name).write_text(text)
    (first.run_dir / "weights").symlink_to(first.run_dir / "plots")  # `weights` is student local's
    result = run(fake_config(train={"max_steps": 2}), overwrite=True)
    assert {name: (result.run_dir / name).read_text() for name in mine} == mine
    assert not (result.run_dir / "weights").exists()
    assert [row["step"] for row in result.metrics] == [1, 2]
    assert [path.name for path in (result.run_dir / "checkpoints").iterdir()] == ["step-2"]
    log = (result.run_dir / "run.log").read_text()
    assert f"left alone in {result.run_dir}, since no run writes them: .git, notes.md, plots" in log


def test_a_run_that_ended_before_it_began_is_in_no_ones_way_beside_the_users_files(fake_config: Make) -> None:
    first = run(fake_config())
    (first.run_dir / "notes.md").write_text("mine")

    class Unreachable(FakeStudent):
        """Cannot be opened."""

        def fingerprint(self) -> dict[str, str]:
            raise InputError("the weights are not there")

    with pytest.raises(InputError, match="the weights are not there"):
        run(fake_config(student=Unreachable()), overwrite=True)
    assert run(fake_config()).steps == 5
    assert (first.run_dir / "notes.md").read_text() == "mine"


class Owning(FakeStudent):
    """Has something elsewhere that a killed run left."""

    name = "owning"

    @classmethod
    def leftovers(cls, run_dir: Path) -> list[Leftover]:
        return [Leftover(path, f"machine {path.stem}") for path in (run_dir / PENDING_CLEANUP).glob("*.owning")]


async def test_what_a_run_left_elsewhere_is_asked_of_the_plugins(fake_config: Make, registry: Registry) -> None:
    config = fake_config()
    record = run_directory(config) / PENDING_CLEANUP / "seven.owning"
    record.parent.mkdir(parents=True)
    record.write_text("its own business")
    with pytest.raises(InputError, match=r"uses no plugin that cleans it up:\nits own business\n.*seven\.owning"):
        await execute(config, registry)
    registry.add(Owning)
    with pytest.raises(InputError, match=r"may still cost money.*\nmachine seven\n.*seven\.owning"):
        await execute(config, registry)
    assert not (run_directory(config) / "metrics.jsonl").exists()
    assert (await execute(fake_config(student=Owning()), registry)).steps == 5
    assert record.is_file()  # the plugin's to remove
