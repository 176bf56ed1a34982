"""The run's training clients: made when one is needed, measured once, replaced by a load, unloaded in the end."""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

from distillkit.context import Notify
from distillkit.errors import RunFailedError
from distillkit_builtin.remote.blocking_calls import start_in_thread
from distillkit_builtin.tinker.batch_codec import LOSS
from distillkit_builtin.tinker.gradient_scale import (
    IDS,
    LOSS_SUM,
    SHORT,
    GradientScale,
    logprob_in,
    norm_in,
    probe_datums,
    scale_of_loss,
    scale_of_norms,
)
from distillkit_builtin.tinker.options import TinkerStudentOptions
from distillkit_builtin.tinker.sdk import load_sdk, sdk_call
from distillkit_builtin.tinker.sdk_errors import lacks_request
from distillkit_builtin.tinker.service import TinkerService

MEASURING = "measuring what the server divides gradients by"
WARNS = "tinker.lib.public_interfaces.training_client"
OF_A_LOAD = "TrainingClient.load_state"


@dataclass(slots=True)
class TrainerConnection:
    """The training client of the run, at one service. A model that is loaded is always a new one."""

    service: TinkerService
    options: TinkerStudentOptions
    seed: int
    notify: Notify
    _client: Any = None

    async def ensure(self) -> Any:  # noqa: ANN401 - the SDK's TrainingClient
        """The training client; of a new model, if nothing was loaded. Raises RunFailedError."""
        if self._client is None:
            self._client = await self._new()
        return self._client

    async def load(self, path: str) -> None:
        """Go on with a new model that has the weights and the optimizer saved at `path`. Raises RunFailedError.

        A server takes weights only as a model's first request.
        """
        service, seconds = self.service, self.options.timeouts.step
        try:
            loaded = await sdk_call(
                f"loading {path}",
                seconds,
                lambda: service.client().create_training_client_from_state_with_optimizer(path),
            )
        except RunFailedError as error:
            if not lacks_request(error.__cause__):
                raise
            loaded = await self._loaded(path)
        before, self._client = self._client, loaded
        await self.unload(before)

    async def _loaded(self, path: str) -> Any:  # noqa: ANN401 - the SDK's TrainingClient
        """By a second request, which SkyRL takes where it refuses (422) what SDK 0.38 sends as one; 0.38 warns of it.

        A path that is wrong is refused by either.
        """
        client, log = await self._new(), logging.getLogger(WARNS)
        warnings.filterwarnings("ignore", f".*{OF_A_LOAD}", FutureWarning)
        log.addFilter(_is_of_no_load)
        try:
            doing, seconds = f"loading {path}", self.options.timeouts.step
            await sdk_call(doing, seconds, lambda: client.load_state_with_optimizer(path))
        except RunFailedError:
            await self.unload(client)
            raise
        finally:
            log.removeFilter(_is_of_no_load)
        return client

    async def measure(self) -> GradientScale:
        """What the server divides gradients by, measured on a model of its own, which is unloaded then.

        Raises:
            InputError: if that fits neither sums nor means.
            RunFailedError: if it cannot be measured.
        """
        client = await self._new()
        try:
            scale = await self._measure(client)
        finally:
            await self.unload(client)
        said = scale.describe()
        if said:
            self.notify(said, "note" if scale.measured else "warning")
        return scale

    async def _measure(self, client: Any) -> GradientScale:  # noqa: ANN401 - the SDK's TrainingClient
        first = await self._summed(client, 2, IDS, 0.0)
        loss, logprob = (first.metrics or {}).get(LOSS_SUM), logprob_in(first.loss_fn_outputs)
        if loss is not None:
            return scale_of_loss(loss, logprob)
        await self._norm(client)  # it has served its end, and is none of those that are compared
        norms = []
        for copies, ids in ((2, IDS), (1, IDS), (1, IDS[:SHORT])):
            await self._summed(client, copies, ids, logprob)
            norms.append(await self._norm(client))
        twice, once, short = norms
        if twice is None or once is None or short is None:
            return GradientScale(measured=False)
        return scale_of_norms(short, once, twice)

    async def _summed(self, client: Any, copies: int, ids: tuple[int, ...], sampling: float) -> Any:  # noqa: ANN401
        """What came of a gradient of a probe."""
        data = probe_datums(load_sdk(), copies, ids, sampling)
        return await sdk_call(MEASURING, self.options.timeouts.step, lambda: client.forward_backward(data, LOSS))

    async def _norm(self, client: Any) -> float | None:  # noqa: ANN401 - the SDK's
        """The norm of the gradient that has been summed, which is gone then; None where the server does not say it."""
        adam = load_sdk().AdamParams(learning_rate=0.0, weight_decay=0.0)
        stepped = await sdk_call(MEASURING, self.options.timeouts.step, lambda: client.optim_step(adam))
        return norm_in(stepped.metrics)

    async def _new(self) -> Any:  # noqa: ANN401 - the SDK's TrainingClient
        options, service = self.options, self.service
        return await sdk_call(
            f"making a LoRA of rank {options.lora_rank} on {options.model}",
            options.timeouts.step,
            lambda: service.client().create_lora_training_client(
                options.model,
                rank=options.lora_rank,
                seed=self.seed,
                train_mlp=options.train_mlp,
                train_attn=options.train_attn,
                train_unembed=options.train_unembed,
            ),
        )

    async def close(self) -> None:
        """Unload the model, where the server can; others drop it with the session."""
        client, self._client = self._client, None
        await self.unload(client)

    async def unload(self, client: Any) -> None:  # noqa: ANN401 - the SDK's TrainingClient, or None
        """Free a model's place at a server that has so many; what fails is left to the end of the session."""
        if client is not None:
            model = str(client.model_id)
            await start_in_thread(lambda: self.service.unload(model), "tinker: unloading a model")


def _is_of_no_load(record: logging.LogRecord) -> bool:
    """Whether the SDK says something else than that its users should load otherwise, which is not the user's to do."""
    return OF_A_LOAD not in record.getMessage()
