"""Runs of student `tinker` through the real SDK, on a service that answers as Tinker does and as SkyRL does."""

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import read_jsonl
from safetensors.torch import load_file

import distillkit
from builtin.tinker.conftest import Start
from builtin.tinker.runs import make_config
from distillkit.errors import InputError, RunFailedError
from distillkit.testing import check_plugin
from distillkit_builtin.tinker.student import TinkerStudent

pytest.importorskip("tinker")
if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService


def steps(run_dir: Path) -> list[dict[str, Any]]:
    return [line for line in read_jsonl(run_dir / "metrics.jsonl") if "train/loss" in line]


def numbers(run_dir: Path) -> list[tuple[float, float]]:
    return [(line["train/loss"], line["train/reverse_kl"]) for line in steps(run_dir)]


def test_a_run_trains_and_its_adapter_is_loaded_whole_by_peft(
    service: "TinkerService", tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    result = distillkit.run(make_config(service, tmp_path, tiny_model, other_tiny_model, data={"epochs": 2}))
    assert result.steps == 4
    run_dir = tmp_path / "runs/tinker"
    found = steps(run_dir)
    assert max(line["rollout/logprob_mismatch_max"] for line in found) < 1e-4
    assert found[0]["train/loss"] == pytest.approx(found[0]["train/reverse_kl"], rel=1e-3)
    config = json.loads((run_dir / "adapter/adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert "q_proj" in config["target_modules"]
    tensors = load_file(run_dir / "adapter/adapter_model.safetensors")
    assert any(float(tensor.abs().max()) > 0 for name, tensor in tensors.items() if "lora_B" in name)
    assert {name.split(".")[-3] for name in tensors} == set(config["target_modules"])


def test_what_a_run_left_at_the_server_teaches_another_run(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    service = start("hosted")
    distillkit.run(make_config(service, tmp_path, tiny_model, other_tiny_model, name="first"))
    (left,) = re.findall(r"stay at the server, as (\S+)", (tmp_path / "runs/first/run.log").read_text())
    scorer = {"name": "tinker", "base_url": service.base_url}
    teachers = [{"model": left, "tokenizer_model": tiny_model, "scorer": scorer}]
    distillkit.run(make_config(service, tmp_path, tiny_model, "", name="second", teachers=teachers))
    gap = steps(tmp_path / "runs/second")[0]["train/reverse_kl"]
    assert abs(gap) > 1e-3  # the base model, as which the student begins, would have none


def test_a_run_that_ended_in_between_goes_on_as_if_it_had_not(
    service: "TinkerService", tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    def config(name: str, most: int) -> distillkit.RunConfig:
        train = {"max_steps": most, "save_every": 1}
        return make_config(service, tmp_path, tiny_model, other_tiny_model, name=name, train=train, data={"epochs": 2})

    distillkit.run(config("whole", 4))
    distillkit.run(config("halves", 2))
    distillkit.run(config("halves", 4), resume=True)
    assert numbers(tmp_path / "runs/halves") == numbers(tmp_path / "runs/whole")
    records = (tmp_path / "runs/halves/checkpoints").glob("*/student/tinker.json")
    names = [json.loads(path.read_text())["checkpoint"] for path in records]
    assert len({name.rpartition("/")[2] for name in names}) == len(names) >= 2


def test_the_numbers_are_those_of_either_server(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    found = {}
    for kind in ("hosted", "skyrl"):
        folder = tmp_path / kind
        folder.mkdir()
        student = {"adam_epsilon": 1e-2, **({"train_unembed": False} if kind == "hosted" else {})}  # as SkyRL does
        distillkit.run(make_config(start(kind), folder, tiny_model, other_tiny_model, student=student))
        summary = json.loads((folder / "runs/tinker/summary.json").read_text())
        assert f'"gradients_divided_by_tokens": {json.dumps(kind == "skyrl")}' in json.dumps(summary)
        found[kind] = [value for line in numbers(folder / "runs/tinker") for value in line]
    assert found["skyrl"] == pytest.approx(found["hosted"], rel=1e-3)  # an epsilon so large that Adam sees the scale


@pytest.mark.parametrize("tempered", [False, True])
def test_logprobs_are_the_models_own_at_any_temperature(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str, tempered: bool
) -> None:
    service = start("hosted", tempered=tempered)
    distillkit.run(make_config(service, tmp_path, tiny_model, other_tiny_model, sampling={"temperature": 0.5}))
    found = steps(tmp_path / "runs/tinker")
    assert max(line["rollout/logprob_mismatch_max"] for line in found) < 1e-4
    log = (tmp_path / "runs/tinker/run.log").read_text()
    assert ("scored once more each" in log) is tempered


def test_every_request_for_a_completion_names_every_field(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    service = start("hosted")
    over = {"train": {"max_steps": 1}, "sampling": {"max_completion_tokens": 5}}  # the first probes ask for 4
    distillkit.run(make_config(service, tmp_path, tiny_model, other_tiny_model, **over))
    asked: list[Any] = [request.body for request in service.traffic.requests() if request.path.endswith("/asample")]
    completions = [body for body in asked if body["sampling_params"]["max_tokens"] == 5]
    params = [body["sampling_params"] for body in completions]
    assert {frozenset(each) for each in params} == {
        frozenset({"max_tokens", "seed", "stop", "temperature", "top_k", "top_p"})
    }
    assert all(each["stop"] and each["top_k"] == -1 and each["top_p"] == 1 for each in params)
    assert all(body["num_samples"] == 1 for body in completions)


def test_a_logprob_that_is_none_ends_the_run_and_says_how_to_go_on(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    from distillkit_loopback.tinker.faults import NaNLogprob

    service = start("hosted")
    service.faults.add(NaNLogprob(), after=2, where="POST .*/forward_backward$")
    train = {"save_every": 1}
    with pytest.raises(RunFailedError, match=r"computed the logprob nan; its step is applied.*--resume"):
        distillkit.run(make_config(service, tmp_path, tiny_model, other_tiny_model, train=train))
    assert len(steps(tmp_path / "runs/tinker")) == 1
    distillkit.run(make_config(service, tmp_path, tiny_model, other_tiny_model, train=train), resume=True)
    assert all(math.isfinite(loss) for loss, _ in numbers(tmp_path / "runs/tinker"))


def test_a_step_that_never_ends_fails_the_run_in_time(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    from distillkit_loopback.training.faults import NeverDone

    service = start("hosted")
    service.faults.add(NeverDone(), after=1, where="POST .*/forward_backward$")
    student = {"timeouts": {"step": 2.0}}
    with pytest.raises(RunFailedError, match=r"no response within 2 s; whether it is applied is not known.*--resume"):
        distillkit.run(make_config(service, tmp_path, tiny_model, other_tiny_model, student=student))


def test_it_keeps_the_contract_of_its_role(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    student = make_config(start("hosted"), tmp_path, tiny_model, other_tiny_model).student
    assert isinstance(student, TinkerStudent)
    check_plugin(student)


def test_skyrl_is_told_to_free_what_was_made(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    service = start("skyrl")
    distillkit.run(make_config(service, tmp_path, tiny_model, other_tiny_model, train={"max_steps": 1}))
    made, freed = (len(service.traffic.requests(f"/api/v1/{name}")) for name in ("create_model", "unload_model"))
    assert made == freed == 2  # the one that was measured, and the run's own


def test_skyrl_is_not_asked_for_what_it_drops(
    start: Start, tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    student = {"grad_clip_norm": 1.0}
    config = make_config(start("skyrl"), tmp_path, tiny_model, other_tiny_model, student=student)
    with pytest.raises(InputError, match=r"student\.grad_clip_norm is 1\.0.*gradients would not be clipped"):
        distillkit.run(config)
