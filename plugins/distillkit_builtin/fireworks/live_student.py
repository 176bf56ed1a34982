"""The live side of student `fireworks`: its training client and its sampler, between open and close."""

import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.fireworks.batch_codec import adam_params, as_datums, step_metrics
from distillkit_builtin.fireworks.checkpoints import Checkpoints
from distillkit_builtin.fireworks.completions import Endpoint, sample_completion, score_completion
from distillkit_builtin.fireworks.export import export
from distillkit_builtin.fireworks.options import FireworksStudentOptions
from distillkit_builtin.fireworks.recovery import Recovery
from distillkit_builtin.fireworks.service import FireworksService
from distillkit_builtin.fireworks.trainer_connection import TrainerConnection
from distillkit_builtin.fireworks.trainer_watch import SUBMIT_SECONDS, TrainerWatch
from distillkit_builtin.hf_tokenizer import HFTokenizer, shared_tokenizer
from distillkit_builtin.remote.as_completed import as_completed


@dataclass(slots=True)
class LiveFireworksStudent:
    """Trains through `connection.client`, samples through `endpoint`."""

    options: FireworksStudentOptions
    connection: TrainerConnection
    endpoint: Endpoint
    tokenizer: HFTokenizer
    watch: TrainerWatch
    checkpoints: Checkpoints
    recovery: Recovery
    version: int = 0
    serves_base: bool = False
    """The deployment is new and serves the base model, which is what version 0 of an untouched student is."""

    @classmethod
    async def open(
        cls, run: RunContext, options: FireworksStudentOptions, service: FireworksService
    ) -> "LiveFireworksStudent":
        """Wait for everything that the run needs; load what the student starts from."""
        provisioning = await service.attach(run)
        connection = await provisioning.student()

        def sampler(controller: object) -> object:
            return connection.sdk_service.create_deployment_sampler(
                tokenizer=None, concurrency_controller=controller, training_client=connection.client
            )

        endpoint = provisioning.endpoint("student", sampler, options.concurrency)
        watch = TrainerWatch(service.base_url, connection.trainer_job, options.timeouts.step)
        checkpoints = Checkpoints(options, connection, watch)
        loaded = await checkpoints.start()
        unsynced = connection.sdk_service.requires_initial_sampler_sync()
        base = connection.fresh_deployment and not loaded and not unsynced
        tokenizer = shared_tokenizer(run, options.tokenizer_model)
        recovery = Recovery(options, connection, watch, checkpoints, run.notify)
        return cls(options, connection, endpoint, tokenizer, watch, checkpoints, recovery, serves_base=base)

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step. One that failed is done again where that is sound (`Recovery`).

        Raises:
            RunFailedError: if it failed and is not done again, or if one of its metrics is not finite.
        """
        self.serves_base = False
        try:
            metrics = await self._step(batch)
        except RunFailedError as error:
            if not await self.recovery.recover(error):
                raise
            metrics = await self._step(batch)
        self.checkpoints.restore = None
        bad = next((name for name, value in metrics.items() if not math.isfinite(value)), None)
        if bad is not None:  # the service has applied it: its weights may be ruined
            raise RunFailedError(f"the service's {bad} is {metrics[bad]}; go on from the last checkpoint by --resume")
        return StepResult(metrics)

    async def _step(self, batch: Batch) -> dict[str, float]:
        """Both requests are sent before either is waited for."""
        client, timeout = self.connection.client, self.options.timeouts.step
        params, normalization = adam_params(self.options), self.options.grad_accumulation_normalization

        def work() -> dict[str, float]:
            datums, options = as_datums(batch), dict(batch.options)
            sent = time.perf_counter()
            gradients = client.forward_backward(datums, batch.loss_function, loss_fn_config=options or None)
            step = client.optim_step(params, grad_accumulation_normalization=normalization)
            summed, summed_at = gradients.result(timeout), time.perf_counter()
            taken, taken_at = step.result(timeout), time.perf_counter()
            times = {"time/forward_backward": summed_at - sent, "time/optim_step": taken_at - summed_at}
            return step_metrics(summed, taken) | times

        return await self.watch.call("a training step", 2 * timeout + SUBMIT_SECONDS, work)

    async def publish(self, version: int) -> Weights:
        """Save the current weights for sampling and hot-load them into the deployment."""
        if version or not self.serves_base or self.options.weight_sync_before_training:
            name, timeouts = f"step-{version}", self.options.timeouts

            def work() -> None:
                saved = self.connection.client.save_weights_for_sampler_ext(name)
                self.connection.sdk_service.hotload_sampler_snapshot(saved.path)

            doing = (
                f"publishing weights as {name} to deployment {self.connection.deployment} "
                f"(student.timeouts.weight_sync: {timeouts.weight_sync} s)"
            )
            await self.watch.call(doing, timeouts.weight_sync + timeouts.step, work)
            self.serves_base = False
        return Weights(version, "live")

    async def sync(self, weights: Weights) -> None:
        """Rollouts carry this version from now on."""
        self.version = weights.version

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of the policy of the last sync."""
        version = self.version

        async def sampled(request: SampleRequest) -> Rollout | Failure:
            return await sample_completion(
                self.endpoint, request, version, self.tokenizer, self.options.timeouts.request
            )

        async for outcome in as_completed(requests, sampled):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores by the deployment that samples."""

        async def scored(request: ScoreRequest) -> Score | Failure:
            return await score_completion(self.endpoint, request, self.options.timeouts.request)

        async for outcome in as_completed(requests, scored):
            yield outcome

    async def save(self, path: Path) -> None:
        """Let the trainer save weights and optimizer; write down what it calls them."""
        await self.checkpoints.save(path, self.version)

    async def load(self, path: Path) -> None:
        """Take back what `save` wrote; the trainer may be another one by now."""
        self.serves_base = False
        self.version = await self.checkpoints.load(path)

    async def export(self, run_dir: Path) -> Path:
        """Save the final weights, make a model of them if one is requested, and write down where they are."""
        return await export(run_dir, self.options, self.connection, self.watch)
