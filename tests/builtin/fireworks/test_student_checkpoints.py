"""What student `fireworks` saves, goes on from and leaves as a model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import distillkit
from builtin.fireworks.runs import make_config, nothing_is_left
from distillkit.errors import InputError, RunFailedError
from distillkit_builtin.fireworks.resource_names import checkpoint_problem

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


def test_a_resumed_run_goes_on_with_a_new_trainer_from_the_old_ones_checkpoint(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    distillkit.run(make_config(service, tmp_path, tiny_model, data={"epochs": 2}, train={"max_steps": 2}))
    assert nothing_is_left(service)
    result = distillkit.run(make_config(service, tmp_path, tiny_model, data={"epochs": 2}), resume=True)
    assert result.steps == 4
    assert [row["step"] for row in result.metrics] == [1, 2, 3, 4]
    loads = [request.body for request in service.requests if request.path.endswith("/load_weights")]
    assert len(loads) == 1
    assert loads[0]["path"].startswith("cross_job://dk-fw-trainer-")  # type: ignore[index]  # an object
    assert nothing_is_left(service)
    # the deployment of the first run is woken, and gets the loaded weights before the first sample
    after = [request.path.rpartition("/")[2] for request in service.requests]
    start = after.index("load_weights")
    assert "save_weights_for_sampler" in after[start : start + after[start:].index("completions")]


def test_a_run_that_was_killed_is_resumed_on_what_it_left_running(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit_builtin.fireworks.provisioning import Provisioning

    with monkeypatch.context() as killed:

        async def leave_all(self: Provisioning, **_: object) -> list[str]:
            return []

        killed.setattr(Provisioning, "_clean_up", leave_all)
        distillkit.run(make_config(service, tmp_path, tiny_model, data={"epochs": 2}, train={"max_steps": 2}))
    left = (list(service.jobs), sorted(service.deployments))
    assert len(left[0]) == 1
    result = distillkit.run(make_config(service, tmp_path, tiny_model, data={"epochs": 2}), resume=True)
    assert result.steps == 4
    created = [
        request
        for request in service.requests
        if request.method == "POST" and request.path.endswith("/rlorTrainerJobs")
    ]
    assert len(created) == 1
    assert nothing_is_left(service)


def test_the_final_weights_become_a_model(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    result = distillkit.run(make_config(service, tmp_path, tiny_model, student={"output_model_id": "my-model"}))
    record = json.loads((result.adapter_path / "model.json").read_text())
    assert record["model"].endswith("my-model")
    assert (service.path(record["model"]) / "adapter_model.safetensors").is_file()
    assert nothing_is_left(service)


def first_step(result: distillkit.RunResult) -> tuple[object, ...]:
    """What follows from the weights that a run begins with, its data and its seed."""
    return tuple(result.metrics[0][name] for name in ("train/reverse_kl", "train/teacher_nll", "train/active_tokens"))


def test_a_student_may_start_from_an_adapter(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    short = {"max_rows": 4}
    first = distillkit.run(
        make_config(service, tmp_path, tiny_model, name="first", student={"output_model_id": "first"}, data=short)
    )
    adapter = json.loads((first.adapter_path / "model.json").read_text())["model"]
    start = {"warm_start_from_adapter": adapter}
    second = distillkit.run(make_config(service, tmp_path, tiny_model, name="second", student=start, data=short))
    assert [request for request in service.requests if request.path.endswith("/load_adapter")]
    again = distillkit.run(make_config(service, tmp_path, tiny_model, name="again", data=short))
    assert first_step(again) == first_step(first) != first_step(second)


@pytest.mark.parametrize(("path", "doing"), [(":promote$", "promoting"), ("/save_weights_for_sampler$", "saving")])
def test_a_failed_promotion_or_final_save_fails_the_run(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, path: str, doing: str
) -> None:
    from distillkit_loopback.fireworks.faults import Fails

    service.faults.add(Fails("disk full"), after=2 if doing == "saving" else 0, where=f"POST .*{path}")
    with pytest.raises(RunFailedError, match=rf"{doing}.*disk full"):
        distillkit.run(make_config(service, tmp_path, tiny_model, student={"output_model_id": "my-model"}))
    assert json.loads((tmp_path / "runs/fw/summary.json").read_text())["status"] == "failed"
    assert nothing_is_left(service)


def test_a_checkpoint_of_another_student_is_refused(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    distillkit.run(make_config(service, tmp_path, tiny_model, data={"epochs": 2}, train={"max_steps": 2}))
    other = make_config(service, tmp_path, tiny_model, data={"epochs": 2}, student={"lora_rank": 4})
    with pytest.raises(InputError, match="lora_rank"):
        distillkit.run(other, resume=True)
    assert nothing_is_left(service)


def test_a_student_may_start_from_another_trainers_checkpoint(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    short = {"max_rows": 4}
    first = distillkit.run(make_config(service, tmp_path, tiny_model, name="first", data=short))
    (saved,) = [json.loads(path.read_text()) for path in first.run_dir.glob("checkpoints/*/student/fireworks.json")]
    start = f"{saved['trainer_job_id']}:{saved['checkpoint']}"
    second = distillkit.run(
        make_config(service, tmp_path, tiny_model, name="second", student={"init_from_checkpoint": start}, data=short)
    )
    again = distillkit.run(make_config(service, tmp_path, tiny_model, name="again", data=short))
    assert first_step(again) == first_step(first) != first_step(second)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("gs://bucket/step-1", "no path and no address"),
        ("tinker://run/weights/1", "no path and no address"),
        ("job:a/b", "no path and no address"),
        ("account/run-1/step-1", "no path and no address"),
        ("job:step:1", "wants JOB:NAME"),
        (":step-1", "wants JOB:NAME"),
        ("job:", "wants JOB:NAME"),
        ("job:Step_1", "of a-z, 0-9 and -"),
        ("job:-step", "no - at either end"),
        ("job:" + "a" * 64, "at most 63"),
        ("step-1", "a new trainer has no checkpoints"),
    ],
)
def test_what_is_no_checkpoint_is_refused_before_anything_is_made(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, start: str, message: str
) -> None:
    """The service would say so once a trainer runs, or load nothing."""
    with pytest.raises(InputError, match=f"init_from_checkpoint '{start}'.*{message}"):
        distillkit.run(make_config(service, tmp_path, tiny_model, student={"init_from_checkpoint": start}))
    assert all(request.method == "GET" for request in service.requests)


@pytest.mark.parametrize(("start", "trainer"), [("my-job:step-000004-1f2e3d", None), ("step-4", "my-job")])
def test_a_checkpoint_is_named_by_its_trainer_or_is_the_reused_ones(start: str, trainer: str | None) -> None:
    assert checkpoint_problem(start, trainer) is None
