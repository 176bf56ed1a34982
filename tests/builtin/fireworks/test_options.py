"""Options that student `fireworks` hands on: each shows in what the service is asked, or in how long it is waited."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import distillkit
from builtin.fireworks.conftest import SERVED
from builtin.fireworks.runs import make_config, nothing_is_left, teacher
from distillkit import Registry
from distillkit.errors import RunFailedError
from distillkit.preflight.prepared_run import inspect_run

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIREWORKS_API_KEY", "test-key")
    monkeypatch.setattr("distillkit_builtin.fireworks.control_plane.POLL_SECONDS", 0.05)
    monkeypatch.setattr("distillkit_builtin.fireworks.cleanup.PAUSE_SECONDS", 0.01)


def run(service: "LoopbackService", folder: Path, tokenizer: str, **student: Any) -> tuple[Any, Any]:
    """The requests that made trainer and sampling deployment."""
    config = make_config(service, folder, tokenizer, student=student, teachers=[teacher(service, SERVED)])
    distillkit.run(config)
    assert nothing_is_left(service)
    posts = {one.path.rpartition("/")[2]: one for one in service.requests if one.method == "POST"}
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
    notes = inspect_run(config, Registry.discover(), print).reports["student"].notes
    assert (
        "trainer my-job is reused (RUNNING), with its own trainer.inactivity_timeout, trainer.use_reservation"
        in notes[0]
    )
    assert "mine is reused (1 replica(s)), with its own deployment.disable_speculative_decoding" in notes[1]


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
    monkeypatch.setattr(Deployment, "public", lambda one: {**public(one), "hotLoadTrainerJob": "the old one"})
    with pytest.raises(RunFailedError, match=r"0\.01"):
        distillkit.run(make_config(service, tmp_path, tiny_model, name="two", student=stubborn, teachers=teachers))
    assert list(service.deployments) == ["mine"]
