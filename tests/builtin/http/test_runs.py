"""Whole runs with teachers over HTTP: what a misbehaving server does to the ledger, and what the user reads."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl
from loopback.openai.wire import COMPLETIONS, Serve
from pydantic import PrivateAttr

import distillkit
from builtin.http.serving import ByteScorer
from distillkit import RunConfig, Sink
from distillkit.errors import AlignmentError, InputError, RunFailedError
from distillkit.events import Event, Notice, StepFinished
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.run_directory.directory import run_directory
from distillkit.testing import FakeStudent
from distillkit.types import SampleRequest
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer

Make = Callable[..., RunConfig]


def teacher(*servers: LoopbackServer, **options: Any) -> dict[str, Any]:
    url: Any = servers[0].url if len(servers) == 1 else tuple(server.url for server in servers)
    return {"model": "loopback", "scorer": ByteScorer(base_url=url, **options)}


def trained(result: distillkit.RunResult) -> list[dict[str, Any]]:
    """What a run learnt, without what depends on the clock."""
    kept = ("train/", "completions/")
    return [{name: value for name, value in row.items() if name.startswith(kept)} for row in result.metrics]


def completions(config: RunConfig) -> list[dict[str, Any]]:
    rows = read_jsonl(run_directory(config) / "ledger.jsonl")
    return [{"step": row["step"], **one} for row in rows for one in row["completions"]]


@pytest.fixture
def untroubled(serve: Serve, fake_config: Make) -> list[dict[str, Any]]:
    """What a run learns whose teacher behaves."""
    return trained(distillkit.run(fake_config(name="untroubled", teachers=[teacher(serve())])))


LOSSLESS: list[Fault] = [
    *(faults.Status(status) for status in (408, 425, 429, 500, 502, 503, 504)),
    faults.Status(429, retry_after=0.1),
    faults.Status(503, retry_after=0.1),
    faults.Hang(),
    faults.Delay(1.4),
    faults.Hangup(),
    faults.ShortBody(),
    faults.Garbage(),
]


@pytest.mark.parametrize("fault", LOSSLESS, ids=repr)
def test_what_goes_away_costs_no_completion_and_changes_nothing(
    serve: Serve, fake_config: Make, untroubled: list[dict[str, Any]], fault: Fault
) -> None:
    server = serve()
    server.faults.add(fault, where=COMPLETIONS, after=3, times=2)
    config = fake_config(teachers=[teacher(server, timeouts={"request": 1.0})])
    result = distillkit.run(config)
    assert trained(result) == untroubled
    assert server.faults.pending == 0
    assert result.summary["failed_completions"] == 0
    assert {one["outcome"] for one in completions(config)} == {"trained"}
    assert sum(value for row in result.metrics for name, value in row.items() if name.endswith("/retries")) >= 2


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_request_that_is_refused_is_in_the_ledger_in_the_servers_words(
    serve: Serve, fake_config: Make, status: int
) -> None:
    server = serve()
    server.faults.add(faults.Status(status), where=COMPLETIONS, after=4)
    config = fake_config(teachers=[teacher(server)])
    result = distillkit.run(config)
    assert (result.steps, result.summary["failed_completions"], result.summary["failed_rows"]) == (5, 1, 0)
    (lost,) = [one for one in completions(config) if one["outcome"] == "failed"]
    assert lost["reason"] == f"{server.url} answered {status}: injected fault"
    assert (lost["stage"], lost["retryable"], lost["teacher"]) == ("score", False, "loopback")
    failed = [value for row in result.metrics for name, value in row.items() if name.endswith("/failed")]
    assert sum(failed) == 2  # once of the teacher, once of all


def test_a_server_that_stays_down_fails_the_run_with_its_reasons(serve: Serve, fake_config: Make) -> None:
    server = serve()
    server.faults.add(faults.Status(503), where=COMPLETIONS, after=5, times=None)
    config = fake_config(teachers=[teacher(server, timeouts={"retry": 0.2})])
    with pytest.raises(RunFailedError, match=r"step 2: all 4 .* failed, .*HTTP 503: injected .*timeouts\.retry"):
        distillkit.run(config)
    lost = [one for one in completions(config) if one["outcome"] == "failed"]
    assert len(lost) == 4
    assert all(one["retryable"] and one["teacher"] == "loopback" for one in lost)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_ends_the_run(
    serve: Serve, fake_config: Make, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "secret-key")
    server = serve(api_key="secret-key")
    server.faults.add(faults.Status(status, body={"error": "secret-key expired"}), where=COMPLETIONS, after=6)
    config = fake_config(teachers=[teacher(server, api_key_env="TEACHER_KEY")])
    with pytest.raises(RunFailedError, match=r"refuses the key: \*\*\* expired"):
        distillkit.run(config)
    told = completions(config)
    assert [one["outcome"] for one in told] == ["trained"] * 4 + ["failed"] * 4
    assert all("refuses the key: *** expired" in one["reason"] for one in told[4:])
    for file in ("config.yaml", "run.log", "summary.json", "ledger.jsonl"):
        assert "secret-key" not in (run_directory(config) / file).read_text(encoding="utf-8")


ENDING: list[tuple[Fault, str]] = [
    (faults.WrongId(), r"token 11: the server scored id \d+, not the sampled \d+"),
    (faults.BadLogprob(math.nan), "the logprob of token 11 is nan"),
    (faults.BadLogprob(-math.inf), r"the logprob of token 11 is minus infinity \(the server sent -inf\)"),
    (faults.BadLogprob(-9999.0), r"the logprob of token 11 is minus infinity \(the server sent -9999\)"),
    (faults.BadLogprob(None), r"prompt_logprobs at 11\.\d+.logprob: Input should be a valid number"),
    (faults.BadLogprob(0.7), "the logprob of token 11 is 0.7, a probability of more than one"),
    (faults.Shorter(), r"the response holds \d+ prompt_logprobs where \d+ were expected"),
    (faults.MissingEntry(), r"the response holds \d+ prompt_logprobs where \d+ were expected"),
    (faults.DuplicateEntry(), r"the response holds \d+ prompt_logprobs where \d+ were expected"),
    (faults.SwappedEntries(), r"token 10: the server scored id \d+, not the sampled \d+"),
]


@pytest.mark.parametrize(
    ("fault", "message"), ENDING, ids=lambda value: repr(value) if not isinstance(value, str) else ""
)
def test_what_is_no_score_ends_the_run_and_is_never_trained(
    serve: Serve, fake_config: Make, fault: Fault, message: str
) -> None:
    server = serve()
    server.faults.add(fault, where=COMPLETIONS, after=5)
    config = fake_config(teachers=[teacher(server)])
    with pytest.raises(AlignmentError, match=rf"score of SampleKey\(row_id='\d+-.*by teacher 'loopback'.*{message}"):
        distillkit.run(config)
    told = completions(config)
    assert [one["outcome"] for one in told] == ["trained"] * 4 + ["failed"] * 4
    assert all(one["reason"].startswith("the run ended: AlignmentError: score of") for one in told[4:])


def test_ids_that_are_not_proved_any_more_end_the_run(serve: Serve, fake_config: Make) -> None:
    server = serve(flavor=Flavor("echo"))
    server.faults.add(faults.NoIds(), where=COMPLETIONS, after=8)
    with pytest.raises(AlignmentError, match=r"by teacher 'loopback'.*echoes tokens as text"):
        distillkit.run(fake_config(teachers=[teacher(server)]))


# When and where


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


class Killer(Sink):
    """Stops the server that was asked most, after the second step."""

    name: ClassVar[str] = "killer"
    _servers: Sequence[LoopbackServer] = PrivateAttr(())

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.step == 2:
            max(self._servers, key=lambda server: server.traffic.counts[COMPLETIONS]).stop()


def test_a_replica_that_is_killed_in_the_middle_of_a_run_loses_nothing(
    serve: Serve, fake_config: Make, untroubled: list[dict[str, Any]]
) -> None:
    killer = Killer()
    killer._servers = [serve(), serve()]
    config = fake_config(teachers=[teacher(*killer._servers)], sinks=[killer])
    result = distillkit.run(config)
    assert trained(result) == untroubled
    assert {one["outcome"] for one in completions(config)} == {"trained"}
    down = [value for name, value in result.metrics[-1].items() if name.endswith("/replicas_down")]
    assert down in ([0.0], [1.0])


def test_the_only_server_may_be_away_for_a_while(
    serve: Serve, fake_config: Make, untroubled: list[dict[str, Any]]
) -> None:
    server = serve()

    class Restarter(Sink):
        """Stops the server after the second step, for a fifth of a second."""

        name: ClassVar[str] = "restarter"

        def emit(self, event: Event) -> None:
            if isinstance(event, StepFinished) and event.step == 2:
                server.stop()
                threading.Timer(0.2, server.start).start()

    config = fake_config(teachers=[teacher(server)], sinks=[Restarter()])
    assert trained(distillkit.run(config)) == untroubled


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
def test_that_a_teacher_on_sglang_does_not_write_is_said_before_anything_is_sampled(
    serve: Serve, fake_config: Make, jsonl: Callable[..., str], dialect: str, evaluator: Any
) -> None:
    server = serve(flavor=Flavor("sglang", ids=False))
    student, hearer = Drawing(), Hearer()
    hearer._heard = student._heard
    config = fake_config(
        student=student,
        teachers=[teacher(server, dialect=dialect)],
        data={"eval_path": jsonl([question(f"held out {i}") for i in range(4)], "heldout.jsonl")},
        train={"max_steps": 1},
        evaluators=[evaluator],
        sinks=[hearer],
    )
    with pytest.raises(RunFailedError, match=r"no completion could be \w+; .* teacher 'loopback': it only scores"):
        distillkit.run(config)
    (at,) = [at for at, heard in enumerate(student._heard) if "only scores" in heard]
    assert "sampled" not in student._heard[:at]
    assert student._heard[at].startswith(f"teacher 'loopback' at {server.url}: it only scores, since it is reached by")
    assert "an evaluator that has teachers write (teacher_trace, pattern with compare)" in student._heard[at]
    assert server.traffic.counts.get(COMPLETIONS, 0) <= 4  # the probe of the dialects: no completion was asked for


def test_a_teacher_on_sglang_says_nothing_where_nothing_is_evaluated(serve: Serve, fake_config: Make) -> None:
    hearer = Hearer()
    config = fake_config(
        teachers=[teacher(serve(flavor=Flavor("sglang", ids=False)))], train={"max_steps": 1}, sinks=[hearer]
    )
    distillkit.run(config)
    assert not [heard for heard in hearer._heard if "only scores" in heard]
