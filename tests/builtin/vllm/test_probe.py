"""The probe on servers whose numbers are not the model's: each fault is found by its name, and none where none is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import question
from loopback.openai.wire import Serve

import distillkit
from distillkit import Registry, RunConfig
from distillkit.errors import InputError
from distillkit.preflight.prepared_run import prepare_run
from distillkit.probe.report import ProbeReport
from distillkit.probe.without_run import probed
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.server import LoopbackServer

pytest.importorskip("torch")
Measure = Callable[..., Any]


@pytest.fixture
def measure(
    local_config: Callable[..., RunConfig], jsonl: Callable[..., str], registry: Registry, tiny_model: str
) -> Measure:
    """Probe a student that samples from the first server, under a teacher that is served by the others."""

    async def probe(sampler: LoopbackServer, *teachers: LoopbackServer) -> ProbeReport:
        scorer = {"name": "http", "base_url": [server.url for server in teachers]}
        config = local_config(
            data={"path": jsonl([question(f"number {i}") for i in range(8)])},
            student={"sampler": {"name": "vllm", "base_url": sampler.url}},
            teachers=[{"model": "loopback", "tokenizer_model": tiny_model, "scorer": scorer}],
            sampling={"max_completion_tokens": 16},
            probe={"rows": 8},
        )
        return await probed(prepare_run(config, registry, print), print)

    return probe


def found(report: ProbeReport) -> dict[str, str]:
    """Random models seldom end by themselves."""
    return {verdict.what: verdict.level for verdict in report.verdicts if verdict.what not in ("endings", "nothing")}


async def test_nothing_is_found_on_servers_that_are_as_they_should_be(
    serve: Serve, real: Any, measure: Measure
) -> None:
    server = serve(real)
    report = await measure(server, server, serve(real))
    assert found(report) == {}
    (teacher,) = report.figures.teachers
    assert set(teacher.asked_again) == {"again", "reversed", "alone", f"replica {teacher_url(teacher)}"}
    assert max(apart.largest for apart in teacher.asked_again.values()) < 1e-4
    weights = report.figures.weights
    assert weights.tokens == teacher.gap.tokens
    assert weights.largest < 1e-4


def teacher_url(teacher: Any) -> str:
    return str(next(how for how in teacher.asked_again if how.startswith("replica ")).partition(" ")[2])


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (faults.Jitter(), "again"),
        (faults.Jitter(1.0), "again"),
        (faults.Order(), "reversed"),
        (faults.Order(1.0), "reversed"),
    ],
    ids=repr,
)
async def test_a_teacher_that_jitters_or_depends_on_the_order(
    serve: Serve, real: Any, measure: Measure, fault: Any, what: str
) -> None:
    teacher = serve(real)
    teacher.faults.add(fault, times=None)
    report = await measure(serve(real), teacher)
    assert found(report) == {what: "refuse" if fault.nats == 1.0 else "warn"}


async def test_a_replica_with_other_weights(serve: Serve, real: Any, measure: Measure) -> None:
    servers = [serve(real) for _ in range(3)]
    servers[1].faults.add(faults.OtherWeights(3.0), times=None)
    report = await measure(servers[0], *servers)
    (verdict,) = [verdict for verdict in report.verdicts if verdict.what != "endings"]
    assert verdict.what == "replica"
    assert servers[1].url in verdict.message
    assert servers[2].url not in verdict.message


async def test_a_sampler_that_serves_another_model_is_not_the_student(
    serve: Serve, real: Any, measure: Measure, tmp_path: Path
) -> None:
    from helpers import tiny_models

    from distillkit_loopback.openai.network_model import NetworkModel

    other = NetworkModel.load(tiny_models.write_model(tmp_path / "other", seed=1))
    report = await measure(serve(other), serve(real))
    assert found(report) == {"weights": "refuse"}
    (verdict,) = report.refused[:1]
    assert "what samples is not the student" in verdict.message


@pytest.mark.parametrize("fields", [{"temperature": 0.0}, {"top_k": 1}, {"top_k": 5}], ids=str)
async def test_a_sampler_whose_server_fills_in_what_it_likes(
    serve: Serve, real: Any, measure: Measure, fields: dict[str, float]
) -> None:
    """It is refused when it is opened, which a probe does too."""
    sampler = serve(real)
    sampler.faults.add(faults.GenerationConfig(fields, forced=True), times=None)
    with pytest.raises(InputError, match="samples from another distribution than the one whose logprobs it reports"):
        await measure(sampler, serve(real))


async def test_what_is_filled_in_where_a_request_says_nothing_does_no_harm(
    serve: Serve, real: Any, measure: Measure
) -> None:
    """Requests say everything."""
    sampler = serve(real)
    sampler.faults.add(faults.GenerationConfig({"top_k": 1, "repetition_penalty": 1.5, "min_p": 0.5}), times=None)
    assert found(await measure(sampler, serve(real))) == {}


def test_no_bit_of_a_run_depends_on_whether_its_sampler_was_compared(
    serve: Serve, real: Any, local_config: Callable[..., RunConfig]
) -> None:
    def numbers(at_start: str) -> Any:
        student = {"sampler": {"name": "vllm", "base_url": serve(real).url}, "lora_dropout": 0.5}
        result = distillkit.run(local_config(name=at_start, student=student, probe={"at_start": at_start, "rows": 4}))
        file = result.run_dir / "probe.json"
        weights = json.loads(file.read_text()) if file.is_file() else None
        named = [{k: v for k, v in row.items() if k.startswith(("train/", "teacher/"))} for row in result.metrics]
        assert "train/loss" in named[-1]
        return weights, named, (result.run_dir / "adapter/adapter_model.safetensors").read_bytes()

    probed, other = numbers("always"), numbers("never")
    assert probed[0]["figures"]["weights"]["largest"] < 1e-4
    assert other[0] is None
    assert probed[1:] == other[1:]
