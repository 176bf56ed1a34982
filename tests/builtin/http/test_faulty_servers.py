"""Whole runs whose teachers' servers fail, stay away or answer nonsense."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from loopback.openai.wire import COMPLETIONS, Serve
from pydantic import PrivateAttr

import distillkit
from builtin.http.runs import completions, teacher, trained
from distillkit import RunConfig, Sink
from distillkit.errors import AlignmentError, RunFailedError
from distillkit.events import Event, StepFinished
from distillkit.run_directory.directory import run_directory
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer

Make = Callable[..., RunConfig]


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


@pytest.mark.parametrize(("status", "said"), [(401, "refuses the key"), (403, "does not allow this")])
def test_a_key_that_is_refused_ends_the_run(
    serve: Serve, fake_config: Make, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "secret-key")
    server = serve(api_key="secret-key")
    server.faults.add(faults.Status(status, body={"error": "secret-key expired"}), where=COMPLETIONS, after=6)
    config = fake_config(teachers=[teacher(server, api_key_env="TEACHER_KEY")])
    with pytest.raises(RunFailedError, match=rf"{said}.*: \*\*\* expired"):
        distillkit.run(config)
    told = completions(config)
    assert [one["outcome"] for one in told] == ["trained"] * 4 + ["failed"] * 4
    assert all(said in one["reason"] and ": *** expired" in one["reason"] for one in told[4:])
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
    with pytest.raises(AlignmentError, match=rf"score of row \d+-.*by teacher 'loopback'.*{message}"):
        distillkit.run(config)
    told = completions(config)
    assert [one["outcome"] for one in told] == ["trained"] * 4 + ["failed"] * 4
    assert all(one["reason"].startswith("the run ended: AlignmentError: score of") for one in told[4:])


def test_ids_that_are_not_proved_any_more_end_the_run(serve: Serve, fake_config: Make) -> None:
    server = serve(flavor=Flavor("echo"))
    server.faults.add(faults.NoIds(), where=COMPLETIONS, after=8)
    with pytest.raises(AlignmentError, match=r"by teacher 'loopback'.*echoes tokens as text"):
        distillkit.run(fake_config(teachers=[teacher(server)]))


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
