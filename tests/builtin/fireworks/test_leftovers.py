"""What a killed run left at Fireworks is not forgotten when another run takes its directory."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import distillkit
from builtin.fireworks.conftest import SERVED
from builtin.fireworks.runs import Make, make_config, nothing_is_left, teacher
from distillkit import Registry, RunConfig
from distillkit.errors import InputError
from distillkit.loop.execute import execute
from distillkit.run_directory.directory import require_cleanup_handlers
from distillkit.run_directory.run_start import RunStart
from distillkit_builtin.fireworks.owned_resources import OwnedResources
from distillkit_builtin.fireworks.student import FireworksStudent
from distillkit_builtin.local.student import LocalStudent

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> "Killed":
    return Killed(monkeypatch)


class Killed:
    """Runs that leave everything at the service, as by `kill -9`; on this machine they end as others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def run(self, config: RunConfig) -> Path:
        from distillkit_builtin.fireworks.provisioning import Provisioning

        async def leave_all(self: Provisioning, **_: object) -> list[str]:
            return []

        with self._monkeypatch.context() as patched:
            patched.setattr(Provisioning, "_clean_up", leave_all)
            return distillkit.run(config).run_dir


def records(run_dir: Path) -> list[Path]:
    return list((run_dir / "pending_cleanup").glob("*.json"))


def trainers_made(service: "LoopbackService") -> list[str]:
    made = [
        request
        for request in service.requests
        if request.method == "POST" and request.path.endswith("/rlorTrainerJobs")
    ]
    return [request.query["rlorTrainerJobId"] for request in made]


def test_what_a_killed_run_left_is_cleaned_up_before_its_successor_makes_anything(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, killed: Killed
) -> None:
    run_dir = killed.run(make_config(service, tmp_path, tiny_model))
    (old,), left = service.jobs, sorted(service.deployments)
    assert len(left) == 2
    assert len(records(run_dir)) == 1
    distillkit.run(make_config(service, tmp_path, tiny_model), overwrite=True)
    assert nothing_is_left(service)
    assert not records(run_dir)
    logged = (run_dir / "run.log").read_text()
    assert all(name in logged for name in (old, *left))
    first, second = trainers_made(service)
    assert first == old != second
    gone = [
        i for i, request in enumerate(service.requests) if request.method == "DELETE" and request.path.endswith(old)
    ]
    made = [i for i, request in enumerate(service.requests) if request.query.get("rlorTrainerJobId") == second]
    assert gone[0] < made[0]


def test_a_run_that_was_killed_before_its_first_step_needs_no_overwrite(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, killed: Killed
) -> None:
    run_dir = killed.run(make_config(service, tmp_path, tiny_model))
    (run_dir / "metrics.jsonl").unlink()
    for checkpoint in (run_dir / "checkpoints").iterdir():
        checkpoint.rename(run_dir / f"away-{checkpoint.name}")
    distillkit.run(make_config(service, tmp_path, tiny_model))
    assert nothing_is_left(service)


def test_what_cannot_be_cleaned_up_is_named_and_stays_written_down(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, killed: Killed
) -> None:
    from distillkit_loopback.fireworks.faults import Status

    run_dir = killed.run(make_config(service, tmp_path, tiny_model))
    (old,) = service.jobs
    service.faults.add(Status(400, message="not now"), times=None, where="DELETE .*/rlorTrainerJobs/")
    for _ in range(2):
        with pytest.raises(
            InputError, match=rf"(?s)trainer job '{old}' may still run: its state is RUNNING.*Nothing was made"
        ):
            distillkit.run(make_config(service, tmp_path, tiny_model), overwrite=True)
        assert list(service.jobs) == trainers_made(service) == [old]
        (path,) = records(run_dir)
        assert json.loads(path.read_text())["trainers"] == {old: "delete"}
    service.faults.clear()
    distillkit.run(make_config(service, tmp_path, tiny_model), overwrite=True)
    assert nothing_is_left(service)


def test_what_is_at_another_service_is_named_with_the_way_to_remove_it(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    run_dir = tmp_path / "runs" / "fw"
    run_dir.mkdir(parents=True)
    elsewhere = OwnedResources.at(run_dir, "http://elsewhere:1")
    elsewhere.add_trainer("their-job", "delete")
    with pytest.raises(InputError, match=r"left things at http://elsewhere:1.*trainer job their-job.*base_url"):
        distillkit.run(make_config(service, tmp_path, tiny_model), overwrite=True)
    assert not service.jobs
    assert OwnedResources.at(run_dir, "http://elsewhere:1").trainers == {"their-job": "delete"}


async def test_a_run_without_fireworks_does_not_take_the_directory(
    service: "LoopbackService",
    tmp_path: Path,
    tiny_model: str,
    killed: Killed,
    fake_config: Make,
    registry: Registry,
) -> None:
    run_dir = killed.run(make_config(service, tmp_path, tiny_model, name="fake"))
    (old,) = service.jobs
    with pytest.raises(InputError, match=rf"(?s)may still cost money.*{old}.*--resume"):
        await execute(fake_config(), registry, RunStart(overwrite=True))
    assert (run_dir / "metrics.jsonl").is_file()
    assert len(records(run_dir)) == 1


def test_what_was_to_be_kept_stays_and_is_told(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, killed: Killed
) -> None:
    keep = {"trainer": {"keep": True}, "deployment": {"cleanup": "keep"}}
    served = [teacher(service, SERVED)]
    run_dir = killed.run(make_config(service, tmp_path, tiny_model, student=keep, teachers=served))
    kept = (list(service.jobs), list(service.deployments))
    distillkit.run(make_config(service, tmp_path, tiny_model, teachers=served), overwrite=True)
    assert (list(service.jobs), list(service.deployments)) == kept
    assert f"they stay: trainer job {kept[0][0]}" in (run_dir / "run.log").read_text()
    assert not records(run_dir)


def test_an_older_trainer_that_the_config_names_is_used_and_stays(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, killed: Killed
) -> None:
    killed.run(make_config(service, tmp_path, tiny_model))
    (old,) = service.jobs
    distillkit.run(make_config(service, tmp_path, tiny_model, student={"trainer": {"job_id": old}}), overwrite=True)
    assert list(service.jobs) == [old]
    assert not service.deployments


@pytest.mark.parametrize("content", ['{"base_url": "http://he', "", "[]", "7", '{"base_url": "http://here"}', "\udcff"])
def test_a_record_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, content: str) -> None:
    owned = OwnedResources.at(tmp_path, "http://here")
    owned.add_trainer("job", "delete")
    owned.record_student("job", "deployment")
    assert owned.path is not None
    for path in (owned.path, tmp_path / "fireworks.json"):
        whole = path.read_bytes()
        path.write_text(content, errors="surrogateescape")
        with pytest.raises(
            InputError, match=r"cannot be read .* may still cost money: look at app\.fireworks\.ai"
        ) as caught:
            OwnedResources.at(tmp_path, "http://here")
        assert str(path) in str(caught.value)
        path.write_bytes(whole)
    owned.path.write_text(content, errors="surrogateescape")
    with pytest.raises(InputError, match="cannot be read"):
        FireworksStudent.leftovers(tmp_path)
    with pytest.raises(InputError, match="uses no plugin that cleans it up"):
        require_cleanup_handlers(tmp_path, [LocalStudent])


def test_a_record_is_flushed_before_anything_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: flushed.append(Path(f"/proc/self/fd/{handle}").readlink()) or fsync(handle)
    )
    owned = OwnedResources.at(tmp_path, "http://here")
    owned.add_trainer("job", "delete")
    assert owned.path is not None
    aside = owned.path.with_name(f".{owned.path.name}.new")
    assert flushed == [tmp_path, aside, owned.path.parent]


def test_a_run_at_two_services_keeps_a_record_of_each(tmp_path: Path) -> None:
    here, there = (OwnedResources.at(tmp_path, url) for url in ("http://here", "http://there"))
    here.add_trainer("job", "delete")
    there.add_deployment("teacher", "delete")
    here.mark_released("job")
    assert OwnedResources.at(tmp_path, "http://there").deployments == {"teacher": "delete"}
    assert not OwnedResources.at(tmp_path, "http://here").trainers
    there.mark_released("teacher")
    assert not list(tmp_path.iterdir())
