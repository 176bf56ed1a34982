"""Options that student `fireworks` hands on: each shows in what the service is asked, or in how long it is waited."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

import distillkit
from builtin.fireworks.conftest import SERVED, STUDENT, TEACHER
from builtin.fireworks.runs import make_config, nothing_is_left, routed_rows, teacher
from distillkit import Registry, RunConfig
from distillkit.config.load import load_config
from distillkit.errors import ConfigError, RunFailedError
from distillkit.preflight import prepared_run
from distillkit.preflight.prepared_run import prepare_run
from distillkit_builtin.fireworks.options import FireworksScorerOptions, FireworksStudentOptions
from distillkit_builtin.fireworks.resource_names import teacher_deployment_id
from distillkit_builtin.fireworks.student import FireworksStudent

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


FLAT = """
data: prompts.jsonl
student:
  name: fireworks
  model: accounts/fireworks/models/m
  tokenizer_model: org/m
  training_shape_id: accounts/fireworks/trainingShapes/s
  lora_rank: 8
  weight_sync_timeout: 60
teachers:
  - model: accounts/fireworks/models/t
    scorer: {name: fireworks, replica_count: 2}
"""


def test_an_option_that_moved_is_named_with_its_new_place_and_line(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(FLAT)
    with pytest.raises(ConfigError) as caught:
        load_config([config], ["student.keep_trainer=true"])
    assert str(caught.value).splitlines() == [
        f"{config}:7: student.training_shape_id: is now student.trainer.training_shape_id",
        f"{config}:9: student.weight_sync_timeout: is now student.timeouts.weight_sync",
        "override 'student.keep_trainer=...': student.keep_trainer: is now student.trainer.keep",
        f"{config}:12: teachers.0.scorer.replica_count: is now teachers.0.scorer.deployment.replica_count",
    ]


@pytest.mark.parametrize("options", [FireworksStudentOptions, FireworksScorerOptions])
def test_every_option_that_moved_has_a_place(options: type[BaseModel]) -> None:
    for old, new in options.moved.items():  # type: ignore[attr-defined]  # both have it
        group, _, name = new.partition(".")
        section = options.model_fields[group].annotation
        assert isinstance(section, type)
        assert name in section.model_fields
        assert old not in options.model_fields
        assert old not in FireworksStudent.volatile


def test_every_option_that_may_change_is_one() -> None:
    for key in FireworksStudent.volatile:
        model: Any = FireworksStudent
        for part in key.split("."):
            model = model.model_fields[part].annotation


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_of_plugins_does_not_matter(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    """A teacher's tokenizer, shape and deployment id depend on the student and on the other teachers."""
    in_order = prepared_run.plugins_of

    def ordered(config: RunConfig, registry: Registry) -> Any:
        cast = in_order(config, registry)
        return replace(cast, by_key=dict(reversed(cast.by_key.items()))) if backwards else cast

    monkeypatch.setattr(prepared_run, "plugins_of", ordered)
    pair = [teacher(service, TEACHER, "deployed"), teacher(service, STUDENT, "served")]
    config = make_config(service, tmp_path, tiny_model, rows=routed_rows(), teachers=pair)
    reports = prepare_run(config, Registry.discover(), print).reports
    ids = {TEACHER: teacher_deployment_id(TEACHER, hashed=True), STUDENT: teacher_deployment_id(STUDENT, hashed=True)}
    for model, route in ((TEACHER, "deployed"), (STUDENT, "served")):
        note = reports[f"teachers.{route}.scorer"].notes[0]
        assert f"{model}: frozen deployment {ids[model]} is made" in note
    distillkit.run(config)
    made = [
        request for request in service.requests if request.method == "POST" and request.path.endswith("/deployments")
    ]
    shapes = {request.query["deploymentId"]: request.body.get("deploymentShape") for request in made}
    assert len(shapes) == 3
    assert shapes.pop(ids[TEACHER]) is None
    assert len(set(shapes.values())) == 1  # that of the student's deployment


def run(service: "LoopbackService", folder: Path, tokenizer: str, **student: Any) -> tuple[Any, Any]:
    """The requests that made trainer and sampling deployment."""
    config = make_config(service, folder, tokenizer, student=student, teachers=[teacher(service, SERVED)])
    distillkit.run(config)
    assert nothing_is_left(service)
    posts = {request.path.rpartition("/")[2]: request for request in service.requests if request.method == "POST"}
    return posts["rlorTrainerJobs"], posts["deployments"]


def test_options_of_trainer_and_deployment_reach_the_service(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    trainer, deployment = run(
        service,
        tmp_path,
        tiny_model,
        trainer={
            "inactivity_timeout": 7200,
            "replica_count": 2,
            "region": "US_VIRGINIA_1",
            "use_reservation": False,
            "custom_image_tag": "1.2.3",
        },
        deployment={"disable_speculative_decoding": True, "hot_load_transition_type": "SYNC"},
    )
    assert trainer.body["inactivityTimeout"] == "7200s"
    assert trainer.body["trainerReplicaCount"] == 2
    assert trainer.body["useReservation"] is False
    assert trainer.body["trainingConfig"]["region"] == "US_VIRGINIA_1"
    assert trainer.body["trainingConfig"]["customImageTag"] == "1.2.3"
    assert deployment.body["placement"] == {"region": "US_VIRGINIA_1"}
    assert deployment.body["hotLoadTransitionType"] == "SYNC"
    assert deployment.query["disableSpeculativeDecoding"] == "true"


def test_what_is_not_set_is_left_to_the_service(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    trainer, deployment = run(service, tmp_path, tiny_model)
    assert not {"inactivityTimeout", "trainerReplicaCount"} & trainer.body.keys()
    assert not {"region", "customImageTag"} & trainer.body["trainingConfig"].keys()
    assert trainer.body["useReservation"] is True
    assert not {"placement", "hotLoadTransitionType"} & deployment.body.keys()
    assert "disableSpeculativeDecoding" not in deployment.query


def test_check_says_which_options_come_too_late_for_what_exists(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    job, deployment = {"job_id": "my-job"}, {"deployment_id": "mine"}
    keep = {"trainer": {**job, "keep": True}, "deployment": {**deployment, "cleanup": "keep"}}
    teachers = [teacher(service, SERVED)]
    distillkit.run(make_config(service, tmp_path, tiny_model, name="one", student=keep, teachers=teachers))
    late = {
        "trainer": {**job, "inactivity_timeout": 7200, "use_reservation": False},
        "deployment": {**deployment, "disable_speculative_decoding": True},
    }
    config = make_config(service, tmp_path, tiny_model, name="two", student=late, teachers=teachers)
    notes = prepare_run(config, Registry.discover(), print).reports["student"].notes
    assert (
        "trainer my-job is reused (RUNNING), with its own trainer.inactivity_timeout, trainer.use_reservation"
        in notes[0]
    )
    assert "mine is reused (1 replica(s)), with its own deployment.disable_speculative_decoding" in notes[1]


@pytest.mark.usefixtures("fast_polls")
def test_a_trainer_is_not_queued_for_longer_than_was_said(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit_loopback.fireworks.jobs import Job

    def queue(job: Job) -> None:
        job.state = "JOB_STATE_PENDING" if job.state == "JOB_STATE_CREATING" else job.state

    monkeypatch.setattr(Job, "start", queue)
    student = {"timeouts": {"trainer_pending": 0.01, "trainer": 3600.0}}
    teachers = [teacher(service, SERVED)]
    with pytest.raises(RunFailedError, match=r"pending for capacity longer than 0\.01s"):
        distillkit.run(make_config(service, tmp_path, tiny_model, student=student, teachers=teachers))
    assert nothing_is_left(service)


@pytest.mark.usefixtures("fast_polls")
def test_a_deployment_is_not_waited_for_without_end_to_change_its_trainer(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit_loopback.fireworks.deployments import Deployment

    public = Deployment.public
    keep = {"deployment": {"deployment_id": "mine", "cleanup": "keep"}}
    teachers = [teacher(service, SERVED)]
    distillkit.run(make_config(service, tmp_path, tiny_model, name="one", student=keep, teachers=teachers))
    stubborn = {"deployment": {"deployment_id": "mine"}, "timeouts": {"reattach_settle": 0.01}}
    # It does not say that its trainer is another one now.
    monkeypatch.setattr(
        Deployment, "public", lambda deployment: {**public(deployment), "hotLoadTrainerJob": "the old one"}
    )
    with pytest.raises(RunFailedError, match=r"0\.01"):
        distillkit.run(make_config(service, tmp_path, tiny_model, name="two", student=stubborn, teachers=teachers))
    assert list(service.deployments) == ["mine"]
