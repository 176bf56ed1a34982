"""The student between open and close: how a step is sent, and which snapshot samples as which version."""

import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from builtin.tinker.plain_sdk import PLAIN_SDK
from distillkit.errors import BadStepError, RunFailedError
from distillkit.records import Weights
from distillkit.testing import make_context
from distillkit.training_data import Batch, Datum
from distillkit.types import SampleKey
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.aimd_window import AimdWindow
from distillkit_builtin.tinker import live_student
from distillkit_builtin.tinker.completions import Endpoint
from distillkit_builtin.tinker.gradient_scale import GradientScale
from distillkit_builtin.tinker.live_student import LiveTinkerStudent
from distillkit_builtin.tinker.options import TinkerStudentOptions


class TrainingClient:
    """Has the result of a gradient only once the optimizer's step has been sent too, as a clock cycle does."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.retries: list[Any] = []
        self._gradient: Future[Any] = Future()

    def forward_backward(self, data: list[Any], loss: str) -> "Future[Any]":
        self.sent.append(loss)
        return self._gradient

    def optim_step(self, params: dict[str, float]) -> "Future[Any]":
        self.sent.append("optim_step")
        outputs = [{"logprobs": SimpleNamespace(data=[0.0, -1.0, -2.0])}]
        self._gradient.set_result(SimpleNamespace(metrics={"loss:sum": 9.0}, loss_fn_outputs=outputs))
        stepped: Future[Any] = Future()
        stepped.set_result(SimpleNamespace(metrics={"skyrl.ai/grad_norm": 0.5}))
        return stepped

    def save_weights_and_get_sampling_client(self, *, retry_config: Any) -> Any:
        self.retries.append(retry_config)
        return SimpleNamespace(name=f"snapshot {len(self.retries)}")


def student(client: TrainingClient, **timeouts: float) -> LiveTinkerStudent:
    async def ensure() -> TrainingClient:
        return client

    options = TinkerStudentOptions(model="m", timeouts={"step": 1.0, **timeouts})
    connection: Any = SimpleNamespace(ensure=ensure)
    admission = Admission(AimdWindow(4, 4, time.monotonic))
    none: Any = None
    return LiveTinkerStudent(make_context(), options, connection, none, none, GradientScale(), PLAIN_SDK, admission)


def batch(advantage: float = 1.0) -> Batch:
    arrays = {"advantages": [advantage, 1.0], "weights": [1.0, 1.0], "sampling_logprobs": [-1.0, -2.0]}
    inputs = {name: np.array(values, np.float32) for name, values in arrays.items()}
    datum = Datum(SampleKey("row", 0, 0), np.array([5, 6]), np.array([7, 8]), inputs)
    return Batch("importance_sampling", {}, (datum,))


async def test_the_optimizer_step_is_sent_before_the_gradient_is_waited_for() -> None:
    client = TrainingClient()
    metrics = (await student(client).train(batch())).metrics
    assert client.sent == ["importance_sampling", "optim_step"]
    assert metrics["train/loss"] == pytest.approx(-2.0)
    assert (metrics["train/grad_norm"], metrics["tinker/loss_sum"]) == (0.5, 9.0)
    assert metrics["time/forward_backward"] >= 0
    assert metrics["time/optim_step"] >= 0


async def test_nothing_is_sent_of_a_step_that_is_not_finite() -> None:
    client = TrainingClient()
    with pytest.raises(BadStepError):
        await student(client).train(batch(float("nan")))
    assert not client.sent


async def test_a_step_without_a_result_ends_the_run_with_how_to_go_on() -> None:
    class Silent(TrainingClient):
        def optim_step(self, params: dict[str, float]) -> "Future[Any]":
            return Future()

    with pytest.raises(RunFailedError, match=r"a training step: no response within 0\.05 s; whether it is applied"):
        await student(Silent(), step=0.05).train(batch())


async def test_a_snapshot_samples_as_its_version_from_the_next_sync_on(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[str] = []

    async def tempered(endpoint: Endpoint, where: str) -> bool:
        probed.append(endpoint.client.name)
        return False

    monkeypatch.setattr(live_student, "reports_raw_logprobs", tempered)
    monkeypatch.setattr(live_student, "retry_config", lambda seconds: f"{seconds:g} s")
    client = TrainingClient()
    live = student(client, request=7.0)
    with pytest.raises(RuntimeError, match="before its first publish"):
        live._ready()
    assert await live.publish(1) == Weights(1, "live")
    assert live.version == 0
    await live.sync(Weights(1, "live"))
    assert await live.publish(3) == Weights(3, "live")
    with pytest.raises(RuntimeError, match="version 1 is not the one that was published, 3"):
        await live.sync(Weights(1, "live"))
    await live.sync(Weights(3, "live"))
    assert (live.version, live._ready().client.name, live._ready().seconds) == (3, "snapshot 2", 7.0)
    assert client.retries == ["7 s", "7 s"]
    assert probed == ["snapshot 1"]  # and what it found holds for the later ones
    assert not live._ready().raw
