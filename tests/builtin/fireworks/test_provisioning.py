"""What a run makes at Fireworks, and what it reuses."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import distillkit
from builtin.fireworks.conftest import SERVED, STUDENT, TEACHER
from builtin.fireworks.runs import made, make_config, nothing_is_left, routed_rows, teacher, two_teachers
from distillkit import Registry
from distillkit.errors import InputError, RunFailedError
from distillkit.preflight.prepared_run import prepare_run
from distillkit_builtin.fireworks.resource_names import MAX_ID, new_run_id, teacher_deployment_id

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService
COST_MONEY = ("POST", "PATCH", "DELETE")


def nothing_was_made(service: "LoopbackService") -> bool:
    return not [request for request in service.requests if request.method in COST_MONEY]


def test_teacher_deployments_are_called_the_same_in_every_run() -> None:
    model = "accounts/fireworks/models/Qwen3.5_35B"
    assert teacher_deployment_id(model, hashed=False) == "distillation-teacher-qwen3-5-35b"
    assert teacher_deployment_id(model, hashed=True).startswith("distillation-teacher-qwen3-5-35b-")
    long = [teacher_deployment_id(f"accounts/x/models/{'long' * 20}{i}", hashed=False) for i in range(2)]
    assert long[0] != long[1]
    assert all(len(name) <= MAX_ID for name in long)
    assert len(new_run_id("Some Run! " * 20, "trainer")) <= MAX_ID
    assert new_run_id("x", "trainer") != new_run_id("x", "trainer")


def test_check_says_what_would_be_made_and_makes_nothing(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    config = make_config(service, tmp_path, tiny_model, teachers=two_teachers(service), rows=routed_rows())
    flight = prepare_run(config, Registry.discover(), print)
    notes = [note for report in flight.reports.values() for note in report.notes]
    assert any("LoRA of rank 8" in note and "trainer" in note for note in notes)
    assert any(TEACHER in note and "distillation-teacher-teacher is made, 1 replica" in note for note in notes)
    assert any(SERVED in note and "as it is" in note for note in notes)
    assert nothing_was_made(service)


def test_a_second_base_model_renames_the_first_ones_deployment(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    pair = [teacher(service, TEACHER, "deployed"), teacher(service, STUDENT, "served")]
    config = make_config(service, tmp_path, tiny_model, rows=routed_rows(), teachers=pair)
    reports = prepare_run(config, Registry.discover(), print).reports
    for model, route in ((TEACHER, "deployed"), (STUDENT, "served")):
        note = reports[f"teachers.{route}.scorer"].notes[0]
        assert teacher_deployment_id(model, hashed=True) in note


def test_everything_that_is_wrong_with_the_student_is_said_at_once(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIREWORKS_API_KEY")
    wrong = {
        "model": "Qwen/Qwen3-8B",
        "trainer": {"training_shape_id": "h200"},
        "deployment": {"deployment_id": "x" * 64},
    }
    with pytest.raises(InputError) as caught:
        distillkit.run(make_config(service, tmp_path, tiny_model, student=wrong))
    for part in ("FIREWORKS_API_KEY is not set", "Qwen/Qwen3-8B", "'h200'", "64 characters"):
        assert part in str(caught.value)
    assert not service.requests


def test_a_wrong_key_is_found_before_anything_is_made(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    from distillkit_loopback.fireworks.faults import Status

    service.faults.add(Status(401, message="invalid api key"), times=None, where="GET ")
    with pytest.raises(InputError, match="FIREWORKS_API_KEY"):
        distillkit.run(make_config(service, tmp_path, tiny_model))
    assert nothing_was_made(service)


def test_two_models_cannot_share_a_deployment_id(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    pair = [
        teacher(service, TEACHER, "deployed", deployment={"deployment_id": "mine"}),
        teacher(service, STUDENT, "served", deployment={"deployment_id": "mine"}),
    ]
    with pytest.raises(InputError, match="'mine' is requested by"):
        distillkit.run(make_config(service, tmp_path, tiny_model, rows=routed_rows(), teachers=pair))
    assert nothing_was_made(service)


def test_two_routes_to_one_model_share_one_deployment(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    pair = [teacher(service, TEACHER, "deployed"), teacher(service, TEACHER, "served")]
    distillkit.run(make_config(service, tmp_path, tiny_model, rows=routed_rows(), teachers=pair))
    assert len(made(service, "deployments")) == 2  # the student's, and one for both
    assert nothing_is_left(service)


def test_a_later_run_wakes_the_teacher_that_an_earlier_one_made(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    for name in ("one", "two"):
        distillkit.run(make_config(service, tmp_path, tiny_model, name=name))
        assert nothing_is_left(service)
    teachers = [request for request in made(service, "deployments") if "teacher" in request.query["deploymentId"]]
    assert len(teachers) == 1


def test_what_the_run_did_not_make_stays(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    keep = {"deployment": {"deployment_id": "mine", "cleanup": "keep"}}
    distillkit.run(make_config(service, tmp_path, tiny_model, name="one", teachers=[teacher(service, TEACHER, **keep)]))
    assert list(service.deployments) == ["mine"]
    theirs = teacher(service, TEACHER, deployment={"deployment_id": "mine"})
    distillkit.run(make_config(service, tmp_path, tiny_model, name="two", teachers=[theirs]))
    assert list(service.deployments) == ["mine"]
    assert not service.jobs


def test_a_deployment_of_another_model_is_refused(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    keep = {"deployment": {"deployment_id": "mine", "cleanup": "keep"}}
    distillkit.run(make_config(service, tmp_path, tiny_model, name="one", teachers=[teacher(service, TEACHER, **keep)]))
    other = teacher(service, STUDENT, deployment={"deployment_id": "mine"})
    with pytest.raises(InputError, match=f"serves {TEACHER}"):
        distillkit.run(make_config(service, tmp_path, tiny_model, name="two", teachers=[other]))


def test_a_dropped_connection_does_not_end_the_provisioning(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    from distillkit_loopback.fireworks.faults import Hangup

    config = make_config(service, tmp_path, tiny_model, teachers=[teacher(service, SERVED)])
    service.faults.add(Hangup(applied=True), where="POST .*/rlorTrainerJobs$")
    service.faults.add(Hangup(applied=True), where="POST .*/deployments$")
    assert distillkit.run(config).steps == 2
    assert nothing_is_left(service)


@pytest.mark.parametrize("after", [0, 1], ids=["one deployment", "the other"])
@pytest.mark.usefixtures("fast_polls")
def test_a_deployment_that_never_gets_ready_ends_the_run_in_time(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, after: int
) -> None:
    from distillkit_loopback.fireworks.faults import NeverDone

    service.faults.add(NeverDone(), after=after, where="POST .*/deployments$")
    short = {"timeouts": {"deployment": 0.5}}
    teachers = [teacher(service, TEACHER, **short)]
    with pytest.raises(RunFailedError, match=r"not ready within 0\.5"):
        distillkit.run(make_config(service, tmp_path, tiny_model, student=short, teachers=teachers))
    assert nothing_is_left(service)


def test_a_teacher_on_the_students_base_gets_the_students_deployment_shape(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    distillkit.run(make_config(service, tmp_path, tiny_model, teachers=[teacher(service, STUDENT)]))
    shapes = [request.body["deploymentShape"] for request in made(service, "deployments")]
    assert len(shapes) == 2
    assert shapes[0] == shapes[1]


def test_the_key_is_in_no_file_of_the_run(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIREWORKS_API_KEY", "fw_very_secret")
    result = distillkit.run(make_config(service, tmp_path, tiny_model))
    for path in result.run_dir.rglob("*"):
        assert not path.is_file() or b"fw_very_secret" not in path.read_bytes()
