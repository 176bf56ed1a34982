"""Whole runs of a tiny transformer that trains here and samples from a server that is given its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl
from loopback.openai.wire import COMPLETIONS, Serve
from pydantic import PrivateAttr

import distillkit
from builtin.http.serving import bodies
from builtin.vllm.pushes import LOAD, UNLOAD
from distillkit import RunConfig, Sink
from distillkit.errors import InputError, RunFailedError
from distillkit.events import Event, Notice, PhaseProgress, StepFinished
from distillkit.loop.training import MISMATCH
from distillkit.testing import ListSink
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.divergence import Divergence
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer

pytest.importorskip("torch")
Make = Callable[..., RunConfig]
ONE_BY_ONE = {"concurrency": {"initial": 1, "max": 1}}
"""So that a server can be stopped while a window is half sampled."""
CLOSE = 1e-3
"""Nats: float32 on both sides, with the LoRA merged on one and beside the weights on the other."""


@pytest.fixture
def remote_config(local_config: Make, jsonl: Callable[..., str]) -> Make:
    """A run of three steps, of two rows with two completions each."""

    def make(server: LoopbackServer, *, sampler: dict[str, Any] | None = None, **over: Any) -> RunConfig:
        options = {"name": "vllm", "base_url": server.url, **(sampler or {})}
        rows = jsonl([question(f"number {i}") for i in range(6)], "six.jsonl")
        values: dict[str, Any] = {
            "data": {"path": rows},
            "sampling": {"max_completion_tokens": 6},
            "train": {"prompt_groups_per_step": 2},
            **over,
        }
        return local_config(**{**values, "student": {**values.get("student", {}), "sampler": options}})

    return make


def require_lossless(result: distillkit.RunResult, steps: int = 3) -> None:
    """All was trained, by the policy that the server was given last."""
    assert (result.steps, result.summary["failed_completions"]) == (steps, 0)
    ledger = read_jsonl(result.run_dir / "ledger.jsonl")
    assert {one["outcome"] for row in ledger for one in row["completions"]} == {"trained"}
    samples = [one for one in read_jsonl(result.run_dir / "samples.jsonl") if one["split"] == "train"]
    assert {(one["step"], one["policy_version"]) for one in samples} == {(s, s - 1) for s in range(1, steps + 1)}
    trained = [row for row in result.metrics if row["step"]]  # else an evaluation alone
    assert len(trained) == steps
    assert all(row[MISMATCH] <= row[f"{MISMATCH}_max"] for row in trained)
    assert all(row[MISMATCH] < CLOSE for row in trained)


def test_each_step_samples_from_the_adapter_of_its_version(serve: Serve, real: Any, remote_config: Make) -> None:
    server = serve(real)
    result = distillkit.run(remote_config(server))
    require_lossless(result)
    loaded = [body["lora_name"] for body in bodies(server, LOAD)]
    assert [name.rpartition("-")[2] for name in loaded] == ["v0", "v1", "v2", "v3"]
    assert [body["lora_name"] for body in bodies(server, UNLOAD)] == loaded
    assert not server.catalogue.adapters
    assert [Path(body["lora_path"]).parent.name for body in bodies(server, LOAD)] == [f"version-{v}" for v in range(4)]
    # what comes before is what is measured of the base model when the run starts, and of the first adapter
    sampled = [body["model"] for body in bodies(server) if "return_token_ids" in body]
    assert sampled[-12:] == [loaded[0]] * 4 + [loaded[1]] * 4 + [loaded[2]] * 4
    assert set(sampled[:-14]) == {"loopback"}
    assert sampled[-14:-12] == [loaded[0]] * 2
    assert all(row["concurrency/student/window"] >= 1 for row in result.metrics)


def test_a_step_is_that_of_a_student_that_samples_itself(serve: Serve, real: Any, remote_config: Make) -> None:
    """Both choose each token by the same uniform number, so completions and gradient are the same."""
    train = {"prompt_groups_per_step": 6, "max_steps": 1, "sample_every": 1, "samples_per_route": 12}
    config = remote_config(serve(real), train=train)
    alone = config.model_dump() | {"name": "alone"}
    alone["student"] = {"name": "local", **alone["student"], "sampler": None}
    steps, ids = [], []
    for made in (config, RunConfig(**alone)):
        result = distillkit.run(made)
        steps.append({name: result.metrics[0][name] for name in ("train/loss", "train/grad_norm", "train/reverse_kl")})
        ids.append([each["token_ids"] for each in read_jsonl(result.run_dir / "samples.jsonl")])
    assert len(ids[0]) == 12
    assert ids[0] == ids[1]
    assert steps[0] == pytest.approx(steps[1], rel=1e-3, abs=CLOSE)


@pytest.mark.parametrize("support", ["teacher_topk", "student_topk", "union"])
def test_a_step_on_top_k_from_servers_is_that_of_the_local_backends(
    serve: Serve, real: Any, other_tiny_model: str, tiny_model: str, remote_config: Make, support: str
) -> None:
    """Student and teacher behind servers, or here: the same ids, and the same numbers at them."""
    from distillkit_loopback.openai.network_model import NetworkModel

    student = LocalStudent(model=tiny_model)
    loss = Divergence(support=support, k=3)  # type: ignore[arg-type]
    if not loss.reads() <= student.loss_capabilities():
        pytest.skip("student local does not give at_ids")
    teacher = serve(NetworkModel.load(other_tiny_model), name=other_tiny_model, flavor=Flavor(scale_out=True))
    served = {"model": other_tiny_model, "scorer": {"name": "http", "base_url": teacher.url}}
    here = {"model": other_tiny_model, "scorer": {"name": "local", "dtype": "float32", "device": "cpu"}}
    options: dict[str, Any] = {"loss": {"name": "divergence", "support": support, "k": 3}}
    train = {"prompt_groups_per_step": 6, "max_steps": 1}
    config = remote_config(serve(real), train=train, teachers=[served], **options)
    local = remote_config(serve(real), train=train, teachers=[here], name="alone", **options).model_dump()
    local["student"] = {"name": "local", **local["student"], "sampler": None}
    rows = [distillkit.run(made).metrics[0] for made in (config, RunConfig(**local))]
    names = ("train/loss", "train/grad_norm", "train/reverse_kl")
    steps = [{name: row[name] for name in names} for row in rows]
    assert steps[0] == pytest.approx(steps[1], rel=1e-3, abs=CLOSE)
    assert steps[0]["train/grad_norm"] > 0


SLOWLY = 0.1
"""Seconds a completion: a sink hears of progress a moment late, and is to act while there is more to sample."""


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
    server = serve(real, delay=SLOWLY)
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
    staying, dying = serve(real, delay=SLOWLY), serve(real, delay=SLOWLY)
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
    server = serve(real, delay=SLOWLY)
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


def test_the_server_may_see_the_run_at_another_path(
    serve: Serve, real: Any, remote_config: Make, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    mount.symlink_to(tmp_path / "runs" / "tiny")
    server = serve(real)
    require_lossless(distillkit.run(remote_config(server, sampler={"server_run_dir": str(mount)})))
    assert all(body["lora_path"].startswith(f"{mount}/weights/version-") for body in bodies(server, LOAD))


def test_a_server_without_runtime_adapters_ends_the_run_with_how_to_start_it(
    serve: Serve, real: Any, remote_config: Make
) -> None:
    server = serve(real)
    server.faults.add(faults.Status(404, body={"detail": "Not Found"}), where=LOAD, times=None)
    with pytest.raises(RunFailedError, match="answered 404: Not Found; start vLLM with VLLM_ALLOW_RUNTIME_LORA"):
        distillkit.run(remote_config(server))


def test_prompts_that_do_not_fit_and_processed_logprobs_end_it_before_the_first_step(
    serve: Serve, real: Any, remote_config: Make, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"prompt and completion take up to \d+ tokens.*--max-model-len 30"):
        distillkit.run(remote_config(serve(real, context_length=30)))
    with pytest.raises(InputError, match="--logprobs-mode raw_logprobs"):
        distillkit.run(remote_config(serve(real, processed_logprobs=True), name="processed"))


def test_a_server_of_another_base_model_is_noticed(serve: Serve, other_tiny_model: str, remote_config: Make) -> None:
    from distillkit_loopback.openai.network_model import NetworkModel

    sink = ListSink()
    result = distillkit.run(remote_config(serve(NetworkModel.load(other_tiny_model)), sinks=[sink]))
    assert all(row[MISMATCH] > 0.1 for row in result.metrics)
    told = [event.message for event in sink.events if isinstance(event, Notice) and MISMATCH in event.message]
    assert len(told) == 1
    assert "Does the sampler serve the student's own base model" in told[0]


def test_what_its_teachers_write_is_scored_one_request_at_a_time(
    serve: Serve, real: Any, remote_config: Make, jsonl: Callable[..., str]
) -> None:
    server = serve(real)
    held_out = jsonl([question(f"held out {i}") for i in range(5)], "heldout.jsonl")

    class Watched(Sink):
        """Forgets what was at once before the last evaluation scores."""

        name: ClassVar[str] = "watched"

        def emit(self, event: Event) -> None:
            if isinstance(event, StepFinished):
                server.traffic.clear()

    config = remote_config(
        server,
        train={"prompt_groups_per_step": 2, "max_steps": 1},
        evaluators=["teacher_trace"],
        sinks=[Watched()],
        data={"path": jsonl([question("one"), question("two")], "two.jsonl"), "eval_path": held_out},
    )
    evals = distillkit.run(config).eval
    for stage in ("before", "after"):
        assert evals[stage]["traces_missing"] == 0
        assert evals[stage]["trace_nll_gap"] > 0
    asked = bodies(server)
    assert len(asked) == 5
    assert all(body["prompt_logprobs"] == 0 for body in asked)
    assert server.traffic.counts[COMPLETIONS] == 5
    assert server.traffic.most_at_once == 1
