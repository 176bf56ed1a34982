import json
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import question
from pydantic import PrivateAttr

import distillkit
from distillkit import InputError, Registry, RunConfig, Sink
from distillkit.context import RunContext
from distillkit.events import Event
from distillkit.preflight.prepared_run import PreparedRun, prepare_run
from distillkit.probe.open_run import opened
from distillkit.probe.rows import spread_rows
from distillkit.records import Weights
from distillkit.roles.plugin import PENDING_CLEANUP, Leftover
from distillkit.testing import FakeScorer, FakeStudent

Make = Callable[..., RunConfig]


def prepared_run(config: RunConfig, registry: Registry) -> PreparedRun:
    return prepare_run(config, registry, print)


class WritingStudent(FakeStudent):
    """Publishes to disk, as for a sampler in another process."""

    name: ClassVar[str] = "writing"
    _run: RunContext | None = PrivateAttr(None)

    async def open(self, run: RunContext) -> None:
        self._run = run

    async def publish(self, version: int) -> Weights:
        assert self._run is not None
        assert self._run.run_dir is not None
        folder = self._run.run_dir / "weights"
        folder.mkdir()
        (folder / "all").write_text("weights")
        return Weights(version, "peft", folder)


class DeafSink(Sink):
    name: ClassVar[str] = "deaf"

    async def open(self, run: RunContext) -> None:
        raise AssertionError("a probe alone is no run: nobody hears of it")

    def emit(self, event: Event) -> None:
        raise AssertionError


async def test_rows_are_sampled_and_scored_for_real_and_the_directory_is_not_even_made(
    fake_config: Make, registry: Registry, tmp_path: Path
) -> None:
    config = fake_config(student=WritingStudent(), sinks=[DeafSink()])
    prepared = prepared_run(config, registry)
    async with opened(prepared, print) as run:
        outcomes = await run.sampled_and_scored(spread_rows(prepared, 4), "test", each=2)
        assert (tmp_path / "runs/fake/.probe/weights/all").is_file()
    assert len(outcomes.scored) == 8
    assert {scored.rollout.policy_version for scored in outcomes.scored} == {0}
    assert len({scored.rollout.request.seed for scored in outcomes.scored}) == 8
    assert not (tmp_path / "runs").exists()


async def test_a_run_that_is_there_stays_as_it_is_and_can_be_resumed(
    fake_config: Make, registry: Registry, tmp_path: Path
) -> None:
    first = await distillkit.arun(fake_config(train={"max_steps": 2}))
    held = {path: path.read_bytes() for path in first.run_dir.rglob("*") if path.is_file()}
    async with opened(prepared_run(fake_config(student=WritingStudent()), registry), print):
        pass
    assert {path: path.read_bytes() for path in first.run_dir.rglob("*") if path.is_file()} == held
    again = await distillkit.arun(fake_config(train={"max_steps": 3}), resume=True)
    assert again.steps == 3


async def test_what_fails_inside_leaves_nothing_either(fake_config: Make, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with opened(prepared_run(fake_config(student=WritingStudent()), registry), print):
            raise ZeroDivisionError
    assert not (tmp_path / "runs").exists()


async def test_two_probes_at_once_do_not_exclude_each_other(
    fake_config: Make, registry: Registry, tmp_path: Path
) -> None:
    run_dir = tmp_path / "runs/fake"
    async with opened(prepared_run(fake_config(student=WritingStudent()), registry), print):
        async with opened(prepared_run(fake_config(student=WritingStudent()), registry), print):
            assert sorted(path.name for path in run_dir.iterdir()) == [".probe", ".probe-2"]
            assert (run_dir / ".probe-2/weights/all").is_file()
        assert (run_dir / ".probe/weights/all").is_file()
    assert not run_dir.exists()


class CostlyScorer(FakeScorer):
    """Rents something: a record says so until it is given back, which a kill prevents."""

    name: ClassVar[str] = "costly"
    killed: bool = False
    _record: Path | None = PrivateAttr(None)

    @classmethod
    def leftovers(cls, run_dir: Path) -> list[Leftover]:
        return [Leftover(path, "a rented teacher") for path in (run_dir / PENDING_CLEANUP).glob("costly*")]

    async def open(self, run: RunContext) -> None:
        assert run.run_dir is not None
        self._record = run.run_dir / PENDING_CLEANUP / "costly.json"
        self._record.parent.mkdir(exist_ok=True)
        self._record.write_text("a rented teacher")

    async def close(self) -> None:
        if self._record is not None and not self.killed:
            self._record.unlink()


async def test_what_a_killed_probe_left_elsewhere_is_cleaned_up_by_the_next_probe_before_a_run_starts(
    fake_config: Make, registry: Registry, tmp_path: Path
) -> None:
    def config(*, killed: bool) -> RunConfig:
        return fake_config(teachers=[{"model": "t", "scorer": CostlyScorer(likes="abc", killed=killed)}])

    async with opened(prepared_run(config(killed=True), registry), print):
        pass
    record = tmp_path / "runs/fake/.probe" / PENDING_CLEANUP / "costly.json"
    assert record.is_file()
    with pytest.raises(InputError, match=r"check CONFIG --probe"):
        await distillkit.arun(config(killed=False))
    with pytest.raises(InputError, match="a rented teacher"):  # by plugins that do not clean it up
        async with opened(prepared_run(fake_config(), registry), print):
            pass
    async with opened(prepared_run(config(killed=False), registry), print):
        pass
    assert not list((tmp_path / "runs/fake").iterdir())
    assert (await distillkit.arun(config(killed=False))).steps == 5


def routed(fake_config: Make, jsonl: Callable[..., str], routes: str, **over: object) -> RunConfig:
    teachers = [{"model": name, "route_value": name, "scorer": {"name": "fake"}} for name in sorted(set(routes))]
    rows = [question(f"number {i}", teacher=route) for i, route in enumerate(routes)]
    return fake_config(
        data={"path": jsonl(rows), "shuffle": False},
        teachers=teachers,
        router={"name": "field", "route_key": "teacher"},
        **over,
    )


@pytest.mark.parametrize(
    ("routes", "count", "expected"),
    [
        ("aaaaaaaabb", 4, [0, 1, 8, 9]),
        ("aaaaaaaaab", 4, [0, 1, 2, 9]),
        ("abcabcabc", 2, [0, 1]),
        ("aaab", 16, [0, 1, 2, 3]),
        ("aaaaaaaabc", 4, [0, 1, 8, 9]),
    ],
)
def test_every_teacher_has_its_share_of_the_rows(
    fake_config: Make, registry: Registry, jsonl: Callable[..., str], routes: str, count: int, expected: list[int]
) -> None:
    prepared = prepared_run(routed(fake_config, jsonl, routes), registry)
    found = [int(prompts.row.row_id.partition("-")[0]) - 1 for prompts in spread_rows(prepared, count)]
    assert found == expected, json.dumps(found)
