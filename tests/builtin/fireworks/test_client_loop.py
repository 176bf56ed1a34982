"""What a run leaves in this process: no thread, socket or open file, however it ends."""

import asyncio
import gc
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import distillkit
from builtin.fireworks.conftest import SERVED, SHAPE, STUDENT
from builtin.fireworks.runs import make_config, nothing_is_left, teacher
from distillkit.errors import RunFailedError
from distillkit.recipes.distillation_loop import Config, DeployConfig, TrainerConfig, main
from distillkit_builtin.fireworks.client_loop import ClientLoop

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

TIME = 30
Connect = Callable[..., Any]


def in_use() -> Counter[str]:
    """Threads by their names and open files by what they are, without numbers: those of a socket differ each time."""
    found = Counter(re.sub(r"\d+", "", f"thread {thread.name}") for thread in threading.enumerate())
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one of the listing itself
            found[re.sub(r"\d+", "", f"file {handle.readlink()}")] += 1
    return found


class Before:
    """What is in use before a run."""

    def __init__(self, service: "LoopbackService") -> None:
        until = time.monotonic() + TIME
        while in_use()["thread Thread- (process_request_thread)"]:  # the service's end of connections to it
            assert time.monotonic() < until
            gc.collect()
            time.sleep(0.01)
        self.in_use = in_use()

    def left(self, seconds: float = 15.0) -> Counter[str]:
        """What is in use besides that. The service's threads take a moment to see that a connection has ended."""
        until = time.monotonic() + seconds
        while True:
            gc.collect()
            left = in_use() - self.in_use
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.02)


@pytest.fixture
def before(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> Before:
    """After a first run: files that libraries open once stay for the next one, but none of the SDK's threads."""
    begun = Before(service)
    teachers = [teacher(service, SERVED)]
    distillkit.run(make_config(service, tmp_path, tiny_model, name="first", data={"max_rows": 1}, teachers=teachers))
    assert not [thing for thing in begun.left() if "background" in thing or "fireworks" in thing]
    return Before(service)


def test_a_run_that_ends_well(service: "LoopbackService", tmp_path: Path, tiny_model: str, before: Before) -> None:
    distillkit.run(make_config(service, tmp_path, tiny_model))
    assert not before.left()


def test_a_run_that_fails_while_its_error_is_kept_and_its_resume(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, before: Before
) -> None:
    """A notebook keeps the last error with its traceback, and so all that its frames hold."""
    from distillkit_loopback.fireworks.faults import Status

    config = make_config(service, tmp_path, tiny_model, train={"save_every": 1})
    service.faults.add(Status(400, message="no such loss"), after=1, where="POST .*/forward_backward$")
    # The step is on its way when its gradients fail: which of the two is answered first is chance.
    with pytest.raises(RunFailedError, match=r"no such loss|takes no more requests") as caught:
        distillkit.run(config)
    assert not before.left()
    assert caught.value.__traceback__ is not None
    distillkit.run(config, resume=True)
    assert not before.left()


@pytest.mark.parametrize("path", ["/create_model$", "/rlorTrainerJobs$"], ids=["model", "trainer"])
def test_a_provisioning_that_fails(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, before: Before, path: str
) -> None:
    from distillkit_loopback.fireworks.faults import Status

    service.faults.add(Status(400, message="no quota"), times=None, where=f"POST .*{path}")
    with pytest.raises(RunFailedError, match="no quota") as caught:
        distillkit.run(make_config(service, tmp_path, tiny_model))
    assert not before.left()
    assert caught.value.__traceback__ is not None


@pytest.mark.parametrize("path", ["/create_model", "/optim_step"])
def test_a_run_that_is_cancelled_while_a_request_hangs(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, before: Before, path: str
) -> None:
    """While it waits for a model, the SDK holds a lock that closing its client needs, and it waits without end."""
    from distillkit_loopback.fireworks.faults import NeverDone

    asked = len(service.requests)
    service.faults.add(NeverDone(), where=f"POST .*{path}$")

    async def cancelled() -> None:
        run = asyncio.create_task(
            distillkit.arun(make_config(service, tmp_path, tiny_model, teachers=[teacher(service, SERVED)]))
        )
        while not any(request.path.endswith(path) for request in service.requests[asked:]):
            await asyncio.sleep(0.02)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(cancelled())
    assert nothing_is_left(service)
    assert not before.left()


def test_the_recipe_with_a_callback_that_samples(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, before: Before, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIREWORKS_BASE_URL", service.base_url)

    def callback(context: dict[str, Any]) -> dict[str, Any]:
        messages = context["dataset"][0]["messages"]
        sampler = context["student_sampler"]
        asyncio.run(sampler.sample_with_tokens(messages=messages, n=1, max_tokens=4, logprobs=True))
        return {}

    main(
        Config(
            log_path=str(tmp_path / "logs"),
            base_model=STUDENT,
            teacher_model=SERVED,
            dataset=str(tmp_path / "train.jsonl"),
            max_rows=2,
            max_completion_tokens=8,
            lora_rank=8,
            trainer=TrainerConfig(training_shape_id=SHAPE),
            deployment=DeployConfig(tokenizer_model=tiny_model),
            post_training_eval=callback,
        )
    )
    assert not before.left()


def test_a_users_own_client_outlives_a_run(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, connect: Connect
) -> None:
    own = connect()
    client = own.create_training_client(STUDENT, lora_rank=4)
    distillkit.run(make_config(service, tmp_path, tiny_model, teachers=[teacher(service, SERVED)]))
    assert client.save_state("after").result(TIME).path


def test_a_loop_that_ended_takes_no_client() -> None:
    loop = ClientLoop()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop.get_loop()).result(TIME)
    waiting = asyncio.run_coroutine_threadsafe(asyncio.sleep(3600), loop.get_loop())
    loop.close()
    assert waiting.cancelled()
    with pytest.raises(RuntimeError, match="the run has ended"):
        loop.get_loop()
    loop.close()
