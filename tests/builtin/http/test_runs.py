"""Whole runs with teachers over HTTP: in which order they score, what a cache spares, and what the user reads."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from conftest import question
from loopback.openai.wire import COMPLETIONS, GENERATE, Serve
from pydantic import PrivateAttr

import distillkit
from builtin.http.runs import completions, teacher, trained
from builtin.http.serving import bodies
from distillkit import RunConfig, Sink
from distillkit.errors import InputError
from distillkit.events import Event, Notice
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.run_directory.directory import run_directory
from distillkit.testing import FakeStudent
from distillkit.types import SampleRequest
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer

Make = Callable[..., RunConfig]


class Waiting(FakeStudent):
    """Draws the second completion when a teacher has been asked about the first."""

    name: ClassVar[str] = "waiting"
    _server: LoopbackServer | None = PrivateAttr(None)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        assert self._server is not None
        before = self._server.traffic.counts[COMPLETIONS]
        async for outcome in super().sample(requests):
            yield outcome
            async with asyncio.timeout(5):
                while self._server.traffic.counts[COMPLETIONS] == before:
                    await asyncio.sleep(0.005)


def test_scoring_starts_while_completions_are_still_sampled(serve: Serve, fake_config: Make) -> None:
    student = Waiting()
    student._server = serve()
    config = fake_config(student=student, teachers=[teacher(student._server)], train={"max_steps": 2})
    assert distillkit.run(config).steps == 2


def test_the_order_of_arrival_changes_nothing(
    serve: Serve, fake_config: Make, untroubled: list[dict[str, Any]]
) -> None:
    server = serve()
    for after in (1, 3, 4, 8, 11):
        server.faults.add(faults.Delay(0.08), where=COMPLETIONS, after=after)
    assert trained(distillkit.run(fake_config(teachers=[teacher(server)]))) == untroubled


class Held(CategoricalModel):
    """Scores nothing of a run before another server has been asked everything that it is to be asked."""

    other: LoopbackServer
    wanted: int = 0

    def score(self, ids: Sequence[int], start: int, top: int) -> Any:
        until = time.monotonic() + 60
        while self.other.traffic.counts.get(COMPLETIONS, 0) < self.wanted:
            assert time.monotonic() < until
            time.sleep(0.005)
        return super().score(ids, start, top)


def test_a_slow_teacher_does_not_hold_up_another_ones_scoring(
    serve: Serve, fake_config: Make, jsonl: Callable[..., str]
) -> None:
    held, fast = Held(), serve()
    held.other = fast

    class Student(FakeStudent):
        """Before its step the teachers are probed only."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            held.wanted = fast.traffic.counts[COMPLETIONS] + 3 * 2
            async for outcome in super().sample(requests):
                yield outcome

    rows = [question(f"q{i}", teacher="slow" if i == 0 else "fast") for i in range(4)]
    servers = {"slow": serve(held), "fast": fast}
    teachers = [{**teacher(server), "route_value": name} for name, server in servers.items()]
    train = {"prompt_groups_per_step": 4}
    config = fake_config(student=Student(), teachers=teachers, data={"path": jsonl(rows)}, train=train)
    assert distillkit.run(config).summary["failed_completions"] == 0


def test_the_summary_names_server_model_and_version(serve: Serve, fake_config: Make) -> None:
    server = serve()
    result = distillkit.run(fake_config(teachers=[teacher(server)], train={"max_steps": 1}))
    provenance: Any = result.summary["provenance"]
    found = provenance["plugins"]["teachers.loopback.scorer"]
    assert (found["model"], found["servers"], found["server_version"]) == ("loopback", [server.url], "0.32.0")
    assert found["dialect"] == "PromptLogprobs"
    assert "httpx" in provenance["versions"]


def test_a_server_that_says_no_version_is_no_fault(serve: Serve, fake_config: Make) -> None:
    server = serve()
    server.faults.add(faults.Status(503), where="/version", times=None)
    result = distillkit.run(fake_config(teachers=[teacher(server)], train={"max_steps": 1}))
    found: Any = result.summary["provenance"]
    assert "server_version" not in found["plugins"]["teachers.loopback.scorer"]
    assert server.traffic.counts["/version"] == 1  # it is not asked again


def test_a_second_run_with_a_cache_asks_only_for_what_is_new(
    serve: Serve, fake_config: Make, tmp_path: Any, untroubled: list[dict[str, Any]]
) -> None:
    asked = []
    for name in ("one", "two"):
        server = serve()
        cached = teacher(server, cache=str(tmp_path / "scores.sqlite"))
        assert trained(distillkit.run(fake_config(name=name, teachers=[cached]))) == untroubled
        asked.append(server.traffic.counts[COMPLETIONS])
    assert asked == [21, 1]  # the probe


def test_a_cache_that_is_damaged_costs_a_warning_and_no_completion(
    serve: Serve, fake_config: Make, tmp_path: Any, untroubled: list[dict[str, Any]]
) -> None:
    path = tmp_path / "scores.sqlite"
    path.write_text("no database at all, " * 100)
    config = fake_config(teachers=[teacher(serve(), cache=str(path))])
    result = distillkit.run(config)
    assert trained(result) == untroubled
    assert {one["outcome"] for one in completions(config)} == {"trained"}
    said = (run_directory(config) / "run.log").read_text(encoding="utf-8")
    assert said.count(f"cache {path}: file is not a database; the run goes on without it") == 1
    counted = [value for row in result.metrics for name, value in row.items() if name.startswith("cache/")]
    assert counted == [0.0, 0.0, 4.0] * 5  # hits, misses, failed


def test_teacher_prompts_that_do_not_fit_are_refused_before_the_run(serve: Serve, fake_config: Make) -> None:
    server = serve(context_length=30)
    with pytest.raises(InputError, match=r"more than the 29 that"):
        distillkit.run(fake_config(teachers=[teacher(server)]))
    assert COMPLETIONS not in server.traffic.counts


def test_evaluators_sample_from_a_teacher_over_http(serve: Serve, fake_config: Make, jsonl: Callable[..., str]) -> None:
    server = serve()
    rates: Mapping[str, Any] = {"name": "pattern", "patterns": {"loopback": "."}, "finished_only": False}
    config = fake_config(
        teachers=[teacher(server)],
        data={"eval_path": jsonl([question(f"held out {i}") for i in range(4)], "heldout.jsonl")},
        train={"max_steps": 1},
        evaluators=[rates, "reverse_kl"],
    )
    before = distillkit.run(config).eval["before"]["routes"]["loopback"]
    assert before["teacher_rate"] > 0
    assert "control_rate" in before


def test_a_server_that_has_another_model_under_the_same_name_is_another_run(serve: Serve, fake_config: Make) -> None:
    def config(steps: int, server: LoopbackServer) -> RunConfig:
        return fake_config(teachers=[teacher(server)], train={"max_steps": steps})

    distillkit.run(config(1, serve(CategoricalModel(seed=0))))
    assert distillkit.run(config(2, serve(CategoricalModel(seed=0))), resume=True).steps == 2  # elsewhere
    with pytest.raises(InputError) as caught:
        distillkit.run(config(3, serve(CategoricalModel(seed=1))), resume=True)
    assert str(caught.value).splitlines()[1:-1] == [
        '  the served model of teacher \'loopback\' was "loopback categorical-0", is "loopback categorical-1"'
    ]


class Hearer(Sink):
    """Keeps notices."""

    name: ClassVar[str] = "hearer"
    _heard: list[str] = PrivateAttr(default_factory=list)

    def emit(self, event: Event) -> None:
        self._heard += [event.message] if isinstance(event, Notice) else []


class Drawing(FakeStudent):
    """Can be asked for its scores, and tells a list when it is asked for completions."""

    name: ClassVar[str] = "drawing"
    _heard: list[str] = PrivateAttr(default_factory=list)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        self._heard.append("sampled")
        async for outcome in super().sample(requests):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        for request in requests:
            yield Score(request, request.rollout.logprobs, request.rollout.token_ids)


@pytest.mark.parametrize("dialect", ["sglang", "auto"])
@pytest.mark.parametrize(
    "evaluator", ["teacher_trace", {"name": "pattern", "patterns": {"loopback": "."}}], ids=["teacher_trace", "pattern"]
)
def test_a_teacher_on_sglang_writes_for_evaluators(
    serve: Serve, fake_config: Make, jsonl: Callable[..., str], dialect: str, evaluator: Any
) -> None:
    server = serve(flavor=Flavor("sglang", ids=False))
    student = Drawing()
    config = fake_config(
        student=student,
        teachers=[teacher(server, dialect=dialect)],
        data={"eval_path": jsonl([question(f"held out {i}") for i in range(4)], "heldout.jsonl")},
        train={"max_steps": 1},
        evaluators=[evaluator],
    )
    result = distillkit.run(config)
    assert {"before", "after"} <= set(result.eval)
    written = [body for body in bodies(server, GENERATE) if body["sampling_params"]["max_new_tokens"]]
    assert len({tuple(body["input_ids"]) for body in written}) >= 4
