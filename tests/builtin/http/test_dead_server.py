"""A teacher's server that dies in the middle of a run: no step that was complete is lost."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from conftest import read_jsonl
from loopback.openai.wire import Serve
from pydantic import PrivateAttr

import distillkit
from builtin.http.runs import teacher
from builtin.http.serving import opened, score_requests, scorer
from distillkit import RunConfig, Sink
from distillkit.errors import RunFailedError
from distillkit.events import Event, PhaseProgress, StepFinished
from distillkit.records import Failure
from distillkit.run_directory.checkpoint import checkpoints, step_of
from distillkit.testing import make_context
from distillkit_builtin.remote import replicas
from distillkit_loopback.openai.server import LoopbackServer

Make = Callable[..., RunConfig]


class Killer(Sink):
    """Stops the server in the middle of the step after the second."""

    name: ClassVar[str] = "killer"
    _servers: list[LoopbackServer] = PrivateAttr(default_factory=list)
    _armed: bool = PrivateAttr(False)

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.step == 2:
            self._armed = True
        if self._armed and isinstance(event, PhaseProgress) and event.phase == "score":
            self._armed = False
            self._servers[0].stop()


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_run_whose_server_died_goes_on_with_another_as_if_nothing_had_been(
    serve: Serve, fake_config: Make, ahead: int
) -> None:
    dying, other, killer = serve(), serve(), Killer()
    killer._servers.append(dying)
    over: dict[str, Any] = {
        "data": {"epochs": 4},  # so that much is left to score, however late the server is gone
        "train": {"prompt_groups_per_step": 2, "max_steps_off_policy": ahead},
        "sampling": {"completions_per_prompt": 1, "max_completion_tokens": 12},
    }
    whole = distillkit.run(fake_config(name="whole", teachers=[teacher(other)], **over))
    teachers = [teacher(dying, timeouts={"retry": 0.2})]
    with pytest.raises(RunFailedError, match=r"(rows|completions) failed, .*timeouts\.retry"):
        distillkit.run(fake_config(name="parts", teachers=teachers, sinks=[killer], **over))
    folder = whole.run_dir.with_name("parts")
    (saved,) = map(step_of, checkpoints(folder))
    assert 2 <= saved <= 3 + ahead
    assert f"step {saved}, the last good one, is saved" in (folder / "run.log").read_text()
    parts = distillkit.run(fake_config(name="parts", teachers=[teacher(other)], **over), resume=True)
    kept = ("train/", "completions/")
    trained, expected = (
        [{name: value for name, value in row.items() if name.startswith(kept)} for row in result.metrics]
        for result in (parts, whole)
    )
    assert trained == expected
    assert [row["outcome"] for row in read_jsonl(folder / "ledger.jsonl")] == ["trained"] * 40


async def test_a_teacher_whose_server_is_gone_is_named_before_its_requests_have_failed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "TOLD_AFTER", 0.0)
    server, told = serve(), []
    async with opened(scorer(server, timeouts={"retry": 2.0}), make_context(notify=told.append)) as plugin:
        told.clear()
        server.stop()
        async for outcome in plugin.score(score_requests(8)):
            assert isinstance(outcome, Failure)
            assert len(told) == 1
    expected = f"teacher 'teacher': no answer from {server.url.removesuffix('/v1')}: connection refused; each request"
    assert told[0].startswith(expected)
