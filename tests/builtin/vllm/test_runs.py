"""Whole runs of a tiny transformer that trains here and samples from a server that is given its weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl
from loopback.openai.wire import COMPLETIONS, Serve

import distillkit
from builtin.http.serving import bodies
from builtin.vllm.pushes import LOAD, UNLOAD
from builtin.vllm.remote_runs import CLOSE, require_lossless
from distillkit import RunConfig, Sink
from distillkit.errors import InputError, RunFailedError
from distillkit.events import Event, Notice, StepFinished
from distillkit.loop.training import MISMATCH
from distillkit.testing import ListSink
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.divergence import Divergence
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.flavors import Flavor

pytest.importorskip("torch")
Make = Callable[..., RunConfig]


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
