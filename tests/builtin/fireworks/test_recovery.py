"""A training step that fails: done again where that loses nothing and doubles nothing, else left to `--resume`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import question, read_jsonl

import distillkit
from builtin.fireworks.conftest import SERVED, STUDENT, TEACHER
from builtin.fireworks.runs import make_config, nothing_is_left, teacher
from distillkit import RunConfig
from distillkit.errors import RunFailedError

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.faults import Effect
    from distillkit_loopback.fireworks.service import LoopbackService

STEPS = 4
ALIKE = {"output_model_id": "model"}
"""Of all runs that are compared: the model's name shows in nothing that is."""
RETRIES = 11
"""The SDK's attempts to submit one request."""


@pytest.fixture(autouse=True)
def _sdk_that_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A submission that is not retried for another five minutes once its first retries are used up."""
    from fireworks.training.sdk._core.lib.internal_client_holder import InternalClientHolder

    async def once(self: InternalClientHolder, send: Any, *args: Any, **options: Any) -> Any:
        return await send(*args, **options)

    monkeypatch.setattr(InternalClientHolder, "execute_with_retries", once)
    monkeypatch.setattr("distillkit_builtin.fireworks.recovery.UNLOAD_SECONDS", 1.0)


def config_of(service: "LoopbackService", folder: Path, tokenizer: str, name: str, **over: Any) -> RunConfig:
    """Four steps of two rows, of a teacher that needs no deployment."""
    train = {"prompt_groups_per_step": 2, "save_every": 1, **over.pop("train", {})}
    teachers = [teacher(service, SERVED)]
    return make_config(service, folder, tokenizer, name=name, teachers=teachers, train=train, **over)


@dataclass(frozen=True)
class Calm:
    """What a run of `config_of` comes to on which nothing fails."""

    losses: list[tuple[int, float, float]]
    weights: bytes


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, tiny_model: str, other_tiny_model: str) -> Calm:
    from distillkit_loopback.fireworks.service import LoopbackService

    folder = tmp_path_factory.mktemp("calm")
    models = {STUDENT: tiny_model, TEACHER: other_tiny_model, SERVED: other_tiny_model}
    with pytest.MonkeyPatch.context() as patched, LoopbackService(models) as service:
        patched.setenv("FIREWORKS_API_KEY", "test-key")
        patched.setenv("TINKER_TELEMETRY", "0")
        result = distillkit.run(config_of(service, folder, tiny_model, "calm", student=ALIKE))
        return Calm(losses(result.metrics), last_weights(service, result.adapter_path))


def losses(rows: Sequence[Any]) -> list[tuple[int, float, float]]:
    return [(row["step"], row["train/loss"], row["train/reverse_kl"]) for row in rows]


def last_weights(service: "LoopbackService", path: Path) -> bytes:
    """The promoted weights of a run."""
    model = json.loads((path / "model.json").read_text())["model"]
    return (service.path(model) / "adapter_model.safetensors").read_bytes()


def bodies(service: "LoopbackService", name: str) -> list[Any]:
    return [request.body for request in service.requests if request.path.endswith(f"/{name}")]


def refused() -> "Effect":
    from distillkit_loopback.fireworks.faults import Status

    return Status(503, message="try later")


def lost() -> "Effect":
    from distillkit_loopback.fireworks.faults import NeverDone

    return NeverDone()


def failed() -> "Effect":
    from distillkit_loopback.fireworks.faults import Fails

    return Fails("a GPU fell off")


@pytest.mark.parametrize(
    ("path", "effect", "times", "after"),
    [
        ("/forward_backward$", refused, RETRIES, 0),
        ("/forward_backward$", refused, RETRIES, 2),
        ("/forward_backward$", failed, 1, 2),
        ("/forward_backward$", lost, 1, 2),
        ("/optim_step$", refused, RETRIES, 2),
        ("/optim_step$", failed, 1, 2),
    ],
    ids=["poisoned at once", "poisoned", "gradients fail", "gradients are lost", "step is refused", "step fails"],
)
def test_a_step_that_failed_is_done_once_on_the_state_before_it(
    service: "LoopbackService",
    tmp_path: Path,
    tiny_model: str,
    calm: Calm,
    path: str,
    effect: Any,
    times: int,
    after: int,
) -> None:

    service.faults.add(effect(), times=times, after=after, where=f"POST .*{path}")
    student = {**ALIKE, "timeouts": {"step": 2.0 if effect is lost else 1800.0}}
    troubled = distillkit.run(config_of(service, tmp_path, tiny_model, "troubled", student=student))
    assert losses(troubled.metrics) == calm.losses
    assert last_weights(service, troubled.adapter_path) == calm.weights
    assert (troubled.steps, troubled.summary["trained_completions"]) == (STEPS, 16)
    assert "the step is done again on a new model" in (troubled.run_dir / "run.log").read_text()
    assert len(bodies(service, "create_model")) == 2
    assert nothing_is_left(service)


def test_a_step_that_was_applied_while_its_answer_was_lost_counts_once(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, calm: Calm
) -> None:
    from distillkit_loopback.transport.faults import Delay

    student = {**ALIKE, "timeouts": {"step": 2.0}}
    config = config_of(service, tmp_path, tiny_model, "troubled", student=student)
    # In the order of their submission: model, gradients, step.
    service.faults.add(Delay(60.0), after=2, where="POST .*/retrieve_future$")
    troubled = distillkit.run(config)
    assert losses(troubled.metrics) == calm.losses
    assert last_weights(service, troubled.adapter_path) == calm.weights
    assert len(bodies(service, "optim_step")) == STEPS + 1


@pytest.mark.parametrize(
    ("over", "why"),
    [
        ({"train": {"save_every": 2}}, "the step before is saved nowhere"),
        ({"student": {"lora_rank": 0, "learning_rate": 0.01}}, "a trainer of all weights has one model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_where_the_state_is_not_known_the_run_ends_and_a_resume_trains_each_row_once(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, over: dict[str, Any], why: str
) -> None:

    rows = [question(f"number {i}") for i in range(8)]
    poisoned = config_of(service, tmp_path, tiny_model, "fw", rows=rows, **over)
    service.faults.add(refused(), times=RETRIES, after=STEPS - 1, where="POST .*/forward_backward$")
    with pytest.raises(RunFailedError, match=r"a training step.*trainer dk-fw-trainer-\w+ is RUNNING.*--resume"):
        distillkit.run(poisoned)
    assert not bodies(service, "unload_model"), why
    assert nothing_is_left(service)
    before = read_jsonl(tmp_path / "runs/fw/ledger.jsonl")
    assert [entry["outcome"] for entry in before] == ["trained"] * 6 + ["failed"] * 2
    steps_before = len(bodies(service, "optim_step"))
    resumed = distillkit.run(poisoned, resume=True)
    saved_at = 2 if "train" in over else 3
    assert len(bodies(service, "load_weights")) == 1
    assert len(bodies(service, "optim_step")) == steps_before + STEPS - saved_at
    assert [row["step"] for row in resumed.metrics] == [1, 2, 3, 4]
    entries = read_jsonl(resumed.run_dir / "ledger.jsonl")
    assert [entry["outcome"] for entry in entries] == ["trained"] * 8
    assert len({entry["row_id"] for entry in entries}) == 8
    assert resumed.summary["trained_completions"] == 16
    assert nothing_is_left(service)


def test_what_would_fail_again_is_not_tried_again(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    from distillkit_loopback.fireworks.faults import Status

    service.faults.add(Status(400, message="no such loss"), after=1, where="POST .*/forward_backward$")
    with pytest.raises(RunFailedError, match=r"no such loss.*--resume"):
        distillkit.run(config_of(service, tmp_path, tiny_model, "fw"))
    assert not bodies(service, "unload_model")


def test_a_step_that_fails_twice_ends_the_run(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:

    service.faults.add(refused(), times=2 * RETRIES, after=1, where="POST .*/forward_backward$")
    with pytest.raises(RunFailedError, match=r"try later.*--resume"):
        distillkit.run(config_of(service, tmp_path, tiny_model, "fw"))
    assert len(bodies(service, "unload_model")) == 1
    assert nothing_is_left(service)


def test_gradients_and_step_are_timed_apart(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    result = distillkit.run(config_of(service, tmp_path, tiny_model, "fw"))
    for row in result.metrics:
        gradients, step = float(row["time/forward_backward"]), float(row["time/optim_step"])  # type: ignore[arg-type]
        assert min(gradients, step) > 0
        assert gradients + step <= float(row["time/train"])  # type: ignore[arg-type]  # a number
