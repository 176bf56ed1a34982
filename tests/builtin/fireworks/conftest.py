"""The loopback service with two tiny models, and the real SDK pointed at it."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fireworks.training.sdk import DeploymentSampler, FiretitanServiceClient

    from distillkit_builtin.local.training.trainer import Trainer
    from distillkit_loopback.fireworks.service import LoopbackService

STUDENT = "accounts/fireworks/models/student"
TEACHER = "accounts/fireworks/models/teacher"
SERVED = "accounts/acme/deployedModels/served"
SHAPE = "accounts/fireworks/trainingShapes/tiny"

Connect = Callable[..., "FiretitanServiceClient"]


@pytest.fixture
def service(tiny_model: str, other_tiny_model: str) -> Iterator["LoopbackService"]:
    """The student's base is the tiny model; the teacher's, to be deployed or served already, is the other one."""
    import torch

    from distillkit_loopback.fireworks.service import LoopbackService

    torch.set_num_threads(1)
    with LoopbackService({STUDENT: tiny_model, TEACHER: other_tiny_model, SERVED: other_tiny_model}) as running:
        yield running


@pytest.fixture(autouse=True, scope="session")
def _no_session_outlives_the_tests() -> Iterator[None]:
    """A session that is not closed sends heartbeats to the end of the process, and warns of them in the terminal."""
    yield
    holder: Any = sys.modules.get("fireworks.training.sdk._core.lib.internal_client_holder")
    loop = None if holder is None else holder._internal_client_holder_thread_singleton._loop
    until = time.monotonic() + 60.0
    while loop is not None and (left := asyncio.all_tasks(loop)):
        assert time.monotonic() < until, left
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def _sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No telemetry, nothing from the user's environment, and short waits between retries."""
    errors = pytest.importorskip("fireworks.training.sdk.errors")
    from fireworks.training.sdk import DeploymentSampler
    from fireworks.training.sdk._core import _base_client

    for name in [name for name in os.environ if name.startswith("FIREWORKS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    monkeypatch.setattr(errors, "_backoff_delay", lambda attempt, start, longest: 0.01 if attempt < 3 else None)
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr(_base_client, "MAX_RETRY_DELAY", 0.01)
    monkeypatch.setattr(DeploymentSampler, "_RETRY_BASE_BACKOFF_S", 0.01)
    monkeypatch.setattr(DeploymentSampler, "_RETRY_MAX_BACKOFF_S", 0.02)


@pytest.fixture(autouse=True)
def _key_and_short_waits(_sdk: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and pauses of our own of hundredths of a second; a test of a missing key takes it out again."""
    monkeypatch.setenv("FIREWORKS_API_KEY", "test-key")
    monkeypatch.setattr("distillkit_builtin.fireworks.control_plane.POLL_SECONDS", 0.05)
    monkeypatch.setattr("distillkit_builtin.fireworks.cleanup.PAUSE_SECONDS", 0.01)


@pytest.fixture
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK polls every 50 ms what it else polls every 5 or 10 s; its pauses are defaults of functions."""
    from fireworks.training.sdk import DeploymentManager, TrainerJobManager
    from fireworks.training.sdk.managed import FiretitanProvisioningConfig

    for function, pause in (
        (TrainerJobManager.wait_for_ready, "poll_interval_s"),
        (TrainerJobManager._poll_until_ready, "poll_interval_s"),
        (DeploymentManager.wait_for_ready, "poll_interval_s"),
        (FiretitanProvisioningConfig.__init__, "reattach_poll_interval_s"),
    ):
        names = function.__code__.co_varnames[: function.__code__.co_argcount]
        defaults = list(function.__defaults__ or ())
        defaults[names[len(names) - len(defaults) :].index(pause)] = 0.05
        monkeypatch.setattr(function, "__defaults__", tuple(defaults))


@pytest.fixture
def connect(service: "LoopbackService") -> Iterator[Connect]:
    """Service clients of the SDK, closed after the test."""
    from fireworks.training.sdk import FiretitanServiceClient

    clients: list[FiretitanServiceClient] = []

    def make(**options: Any) -> "FiretitanServiceClient":
        settings = {
            "api_key": "test-key",
            "base_url": service.base_url,
            "base_model": STUDENT,
            "tokenizer_model": "unused",
            "training_shape_id": SHAPE,
            "trainer_job_id": "trainer",
            "deployment_id": "student",
            "create_deployment": True,
            "max_lora_rank": 8,
            "cleanup_trainer_on_close": True,
            "cleanup_deployment_on_close": "scale_to_zero",
            "reattach_poll_interval_s": 0.02,
            **options,
        }
        clients.append(FiretitanServiceClient.from_firetitan_config(**settings))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def sampler_of(service: "LoopbackService") -> Callable[..., "DeploymentSampler"]:
    """A sampler of what the service serves under a name."""
    from fireworks.training.sdk import DeploymentSampler

    def make(model: str = SERVED) -> "DeploymentSampler":
        return DeploymentSampler(inference_url=service.base_url, model=model, api_key="test-key")

    return make


@pytest.fixture
def twin(tiny_model: str) -> "Trainer":
    """The local trainer of a LoRA as the service makes it, rank 4."""
    from loopback.fireworks.sdk_calls import twin_of

    return twin_of(tiny_model)


async def ask(sampler: "DeploymentSampler", prompt: list[int], **options: Any) -> Any:
    """The one completion of a prompt; the sampler's connections end with the loop that they belong to."""
    try:
        completions = await sampler.sample_with_prompt_tokens(prompt, **{"n": 1, "logprobs": True, **options})
    finally:
        if sampler._async_client is not None:
            await sampler._async_client.aclose()
    assert len(completions) == 1
    return completions[0]
