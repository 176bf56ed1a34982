"""The training clients of a run, beside a server of one position: what is measured, what a load leaves behind."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from builtin.tinker.plain_sdk import PLAIN_SDK
from distillkit.errors import RunFailedError
from distillkit_builtin.tinker import trainer_connection
from distillkit_builtin.tinker.gradient_scale import AT, IDS, GradientScale
from distillkit_builtin.tinker.options import TinkerStudentOptions
from distillkit_builtin.tinker.trainer_connection import TrainerConnection

SMALLEST = 6e-8
"""Below this a norm is 0, as in float16."""


class RefusedError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("refused")
        self.status_code = status


class Model:
    """Its token at `AT` has the logprob; the gradient is the ratio times the advantage, divided as a server divides."""

    def __init__(self, model_id: str, logprob: float, scale: GradientScale, fails: str = "") -> None:
        self.model_id, self.loaded = model_id, ""
        self._logprob, self._scale, self._fails = logprob, scale, fails
        self._gradient, self._sequences = 0.0, 0
        self.rates: list[float] = []

    def forward_backward(self, data: list[Any], loss: str) -> Any:
        self._require("forward_backward")
        for datum in data:
            given, count = datum.loss_fn_inputs, len(datum.model_input)
            ratio = math.exp(self._logprob - given["logprobs"][AT])
            self._gradient += ratio * given["advantages"][AT] / (count if self._scale.by_tokens else 1)
            self._sequences += 1
        logprobs = [-1.0] * AT + [self._logprob] + [-1.0] * (len(IDS) - AT - 2)
        return SimpleNamespace(metrics={}, loss_fn_outputs=[{"logprobs": SimpleNamespace(data=logprobs)}])

    def optim_step(self, adam: dict[str, float]) -> Any:
        self.rates.append(adam["learning_rate"])
        norm = self._gradient / (self._sequences if self._scale.by_sequences else 1)
        self._gradient, self._sequences = 0.0, 0
        return SimpleNamespace(metrics={"skyrl.ai/grad_norm": norm if norm > SMALLEST else 0.0})

    def load_state_with_optimizer(self, path: str) -> None:
        self._require("load_state")
        self.loaded = path

    def _require(self, doing: str) -> None:
        if doing == self._fails:
            raise RefusedError(400)


class Service:
    """A `TinkerService`, and the SDK's client of it."""

    def __init__(self, *, logprob: float = -3.0, scale: GradientScale | None = None, **fails: Any) -> None:
        self.made: list[Model] = []
        self.unloaded: list[str] = []
        self.asked: list[dict[str, Any]] = []
        self._of_model = (logprob, scale or GradientScale(), fails.get("fails", ""))
        self._creator_fails = fails.get("creator_fails", 0)

    def client(self) -> "Service":
        return self

    def unload(self, model_id: str) -> None:
        self.unloaded.append(model_id)

    def create_lora_training_client(self, model: str, **options: Any) -> Model:
        self.asked.append({"model": model, **options})
        self.made.append(Model(f"model-{len(self.made)}", *self._of_model))
        return self.made[-1]

    def create_training_client_from_state_with_optimizer(self, path: str) -> Model:
        if self._creator_fails:
            raise RefusedError(self._creator_fails)
        made = self.create_lora_training_client("")
        made.loaded = path
        return made


@pytest.fixture(autouse=True)
def _plain_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_connection, "load_sdk", lambda: PLAIN_SDK)


def connection(service: Service, told: list[str] | None = None, **options: Any) -> TrainerConnection:
    def tell(message: str, level: str = "note") -> None:
        (told if told is not None else []).append(f"{level}: {message}")

    return TrainerConnection(service, TinkerStudentOptions(model="m", **options), 42, tell)  # type: ignore[arg-type]


@pytest.mark.parametrize("logprob", [-3.0, -45.0])
@pytest.mark.parametrize("divides", [False, True])
async def test_the_scale_is_measured_also_where_the_token_is_improbable(logprob: float, divides: bool) -> None:
    service, told = Service(logprob=logprob, scale=GradientScale(divides, divides)), list[str]()
    assert await connection(service, told).measure() == GradientScale(divides, divides)
    assert service.unloaded == ["model-0"]
    assert set(service.made[0].rates) == {0.0}
    assert bool(told) is divides


@pytest.mark.parametrize("left_out", ["train_mlp", "train_attn", "train_unembed"])
async def test_a_model_has_the_runs_seed_and_the_layers_of_the_options(left_out: str) -> None:
    service = Service()
    options: dict[str, Any] = {left_out: False}
    trainer = connection(service, None, lora_rank=4, **options)
    assert await trainer.ensure() is await trainer.ensure() is service.made[0]
    layers = {"train_mlp": True, "train_attn": True, "train_unembed": True, left_out: False}
    assert service.asked == [{"model": "m", "rank": 4, "seed": 42, **layers}]


async def test_a_model_that_could_not_be_measured_is_unloaded_too() -> None:
    service = Service(fails="forward_backward")
    with pytest.raises(RunFailedError, match="measuring what the server divides gradients by: HTTP 400: refused"):
        await connection(service).measure()
    assert service.unloaded == ["model-0"]


@pytest.mark.parametrize("creator_fails", [0, 404, 422])
async def test_a_load_is_into_a_new_model_and_frees_the_one_before(creator_fails: int) -> None:
    service = Service(creator_fails=creator_fails)
    trainer = connection(service)
    before = await trainer.ensure()
    await trainer.load("tinker://run/weights/step-1")
    assert await trainer.ensure() is service.made[-1] is not before
    assert service.made[-1].loaded == "tinker://run/weights/step-1"
    assert service.unloaded == [before.model_id]
    await trainer.close()
    assert service.unloaded == [before.model_id, service.made[-1].model_id]


@pytest.mark.parametrize("fails", [{"creator_fails": 500}, {"creator_fails": 422, "fails": "load_state"}])
async def test_a_load_that_fails_leaves_the_model_before_to_be_freed(fails: dict[str, Any]) -> None:
    service = Service(**fails)
    trainer = connection(service)
    before = await trainer.ensure()
    with pytest.raises(RunFailedError, match=r"loading tinker://run/weights/step-1: HTTP \d00: refused"):
        await trainer.load("tinker://run/weights/step-1")
    assert await trainer.ensure() is before
    await trainer.close()
    assert set(service.unloaded) == {made.model_id for made in service.made}
