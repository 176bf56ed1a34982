"""Servers that are restarted or die while a run samples from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from loopback.openai.wire import Serve
from pydantic import PrivateAttr

import distillkit
from builtin.http.serving import bodies
from builtin.vllm.pushes import LOAD
from builtin.vllm.remote_runs import ONE_BY_ONE, require_lossless
from distillkit import RunConfig, Sink
from distillkit.events import Event, PhaseProgress, StepFinished
from distillkit_loopback.openai.faults import Delay
from distillkit_loopback.openai.server import LoopbackServer

pytest.importorskip("torch")
Make = Callable[..., RunConfig]
SLOWLY = 0.1
"""Seconds a completion: a sink hears of progress a moment late, and is to act while there is more to sample."""


def slow(server: LoopbackServer) -> LoopbackServer:
    """Slow at the completions of the run, which have 6 tokens, and not at what is asked when the run is opened."""
    server.faults.add(Delay(SLOWLY), times=None, where=lambda request: request.fields.get("max_tokens") == 6)
    return server


class Restarter(Sink):
    """Restarts a server on its port while the second step draws or, with `between`, after the first step."""

    name: ClassVar[str] = "restarter"
    between: bool = False
    _server: LoopbackServer | None = PrivateAttr(None)
    _steps: int = PrivateAttr(0)
    _done: bool = PrivateAttr(False)

    @classmethod
    def of(cls, server: LoopbackServer, **options: Any) -> "Restarter":
        restarter = cls(**options)
        restarter._server = server
        return restarter

    def emit(self, event: Event) -> None:
        self._steps += isinstance(event, StepFinished)
        drawing = isinstance(event, PhaseProgress) and event.phase == "sample" and event.done == 2
        if self._steps == 1 and not self._done and (self.between or drawing):
            assert self._server is not None
            self._server.stop()
            self._server.start()
            self._done = True


@pytest.mark.parametrize("between", [False, True], ids=["while it draws", "between steps"])
def test_a_restarted_server_costs_nothing_but_time(serve: Serve, real: Any, remote_config: Make, between: bool) -> None:
    server = slow(serve(real))
    restarter = Restarter.of(server, between=between)
    result = distillkit.run(remote_config(server, sampler=ONE_BY_ONE, sinks=[restarter]))
    assert restarter._done
    require_lossless(result)
    assert len(bodies(server, LOAD)) == 5


class Stopper(Sink):
    """Stops a server while the second step samples, for good or until the next version was pushed."""

    name: ClassVar[str] = "stopper"
    returns: bool
    _server: LoopbackServer | None = PrivateAttr(None)
    _steps: int = PrivateAttr(0)
    _stopped: bool = PrivateAttr(False)

    @classmethod
    def of(cls, server: LoopbackServer, *, returns: bool) -> "Stopper":
        stopper = cls(returns=returns)
        stopper._server = server
        return stopper

    def emit(self, event: Event) -> None:
        assert self._server is not None
        if isinstance(event, StepFinished):
            self._steps += 1
            if self._steps == 2 and self.returns:
                self._server.start()
        sampling = isinstance(event, PhaseProgress) and event.phase == "sample" and event.done >= 1
        if self._steps == 1 and sampling and not self._stopped:
            self._server.stop()
            self._stopped = True


@pytest.mark.parametrize("lora_rank", [4, 0])
@pytest.mark.parametrize("returns", [False, True], ids=["for good", "for a push"])
def test_one_of_two_servers_that_dies_costs_no_completion(
    serve: Serve, real: Any, remote_config: Make, lora_rank: int, returns: bool
) -> None:
    staying, dying = slow(serve(real)), slow(serve(real))
    stopper = Stopper.of(dying, returns=returns)
    options = {"base_url": [staying.url, dying.url], "timeouts": {"retry": 60, "request": 10}}
    student = {"lora_rank": lora_rank, "learning_rate": 0.01}
    result = distillkit.run(remote_config(staying, sampler=options, student=student, sinks=[stopper]))
    assert stopper._stopped
    require_lossless(result)
    log = (result.run_dir / "run.log").read_text()
    assert log.count(f"policy version 2 is not loaded at {dying.url}") == log.count("is not loaded at") == 1


@pytest.mark.parametrize("between", [False, True], ids=["while it draws", "between steps"])
def test_all_weights_are_pushed_and_pushed_again_after_a_restart(
    serve: Serve, real: Any, remote_config: Make, between: bool
) -> None:
    server = slow(serve(real))
    restarter = Restarter.of(server, between=between)
    student = {"lora_rank": 0, "learning_rate": 0.01}
    result = distillkit.run(remote_config(server, sampler=ONE_BY_ONE, student=student, sinks=[restarter]))
    require_lossless(result)
    paths = [Path(body["kwargs"]["weights_path"]) for body in bodies(server, "/collective_rpc")]
    assert [path.parent.name for path in paths] == [f"version-{v}" for v in (0, 1, 1, 2, 3)]
    assert {body["model"] for body in bodies(server)} == {"loopback"}
    assert server.catalogue.weight_version.endswith("-v3")
    assert LOAD not in server.traffic.counts


def test_an_interrupted_run_goes_on_with_the_versions_that_it_had(serve: Serve, real: Any, remote_config: Make) -> None:
    server = serve(real)
    distillkit.run(remote_config(server, train={"prompt_groups_per_step": 2, "max_steps": 2}))
    result = distillkit.run(remote_config(server), resume=True)
    require_lossless(result)
    versions = [body["lora_name"].rpartition("-")[2] for body in bodies(server, LOAD)]
    assert versions == ["v0", "v1", "v2", "v2", "v3"]
