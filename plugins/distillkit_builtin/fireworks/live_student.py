"""The live side of student `fireworks`: its training client and its sampler, between open and close."""

import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.records import Batch, Failure, Rollout, Score, ScoreRequest, StepResult, Weights
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.fireworks.batch_codec import adam_params, as_datums, step_metrics
from distillkit_builtin.fireworks.checkpoints import Checkpoints
from distillkit_builtin.fireworks.completions import draw, judge
from distillkit_builtin.fireworks.endpoint import Endpoint
from distillkit_builtin.fireworks.export import export
from distillkit_builtin.fireworks.provision_trainer import TrainerParts
from distillkit_builtin.fireworks.recovery import Recovery
from distillkit_builtin.fireworks.service import Service
from distillkit_builtin.fireworks.trainer_watch import SUBMIT_SECONDS, TrainerWatch
from distillkit_builtin.remote.as_completed import as_completed

if TYPE_CHECKING:
    from distillkit_builtin.fireworks.student import FireworksStudent


@dataclass(slots=True)
class FireworksPupil:
    """Trains through `parts.client`, samples through `endpoint`."""

    options: "FireworksStudent"
    service: Service
    parts: TrainerParts
    endpoint: Endpoint
    tokenizer: Tokenizer
    watch: TrainerWatch
    checkpoints: Checkpoints
    recovery: Recovery
    version: int = 0
    serves_base: bool = False
    """The deployment is new and serves the base model, which is what version 0 of an untouched student is."""

    @classmethod
    async def open(cls, run: RunContext, options: "FireworksStudent", service: Service) -> "FireworksPupil":
        """Wait for everything that the run needs; load what the student starts from."""
        await service.enter(run)
        parts = await service.student_parts()

        def sampler(controller: object) -> object:
            return parts.service.create_deployment_sampler(
                tokenizer=None, concurrency_controller=controller, training_client=parts.client
            )

        endpoint = service.endpoint("student", sampler, options.initial_concurrency, options.max_concurrency)
        watch = TrainerWatch(service.base_url, parts.trainer_job, options.step_timeout)
        checkpoints = Checkpoints(options, parts, watch)
        loaded = await checkpoints.start()
        base = parts.fresh_deployment and not loaded and not parts.service.requires_initial_sampler_sync()
        tokenizer = options.tokenizer(run)
        recovery = Recovery(options, parts, watch, checkpoints, run.notify)
        return cls(options, service, parts, endpoint, tokenizer, watch, checkpoints, recovery, serves_base=base)

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step. One that failed is done again where that is sound (`Recovery`)."""
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
        client, timeout = self.parts.client, self.options.step_timeout
        params, normalization = adam_params(self.options), self.options.grad_accumulation_normalization

        def work() -> dict[str, float]:
            datums, options = as_datums(batch), dict(batch.options)
            sent = time.perf_counter()
            gradients = client.forward_backward(datums, batch.loss_function, loss_fn_config=options)
            step = client.optim_step(params, grad_accumulation_normalization=normalization)
            summed, summed_at = gradients.result(timeout), time.perf_counter()
            taken, taken_at = step.result(timeout), time.perf_counter()
            times = {"time/forward_backward": summed_at - sent, "time/optim_step": taken_at - summed_at}
            return step_metrics(summed, taken) | times

        return await self.watch.call("a training step", 2 * timeout + SUBMIT_SECONDS, work)

    async def publish(self, version: int) -> Weights:
        """Save the current weights for sampling and hot-load them into the deployment."""
        if version or not self.serves_base or self.options.weight_sync_before_training:
            name = f"step-{version}"

            def work() -> None:
                saved = self.parts.client.save_weights_for_sampler_ext(name)
                self.parts.service.hotload_sampler_snapshot(saved.path)

            doing = (
                f"publishing weights as {name} to deployment {self.parts.deployment} (student.weight_sync_timeout: "
                f"{self.options.weight_sync_timeout} s)"
            )
            await self.watch.call(doing, self.options.weight_sync_timeout + self.options.step_timeout, work)
            self.serves_base = False
        return Weights(version, "live")

    async def sync(self, weights: Weights) -> None:
        """Rollouts carry this version from now on."""
        self.version = weights.version

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of the policy of the last sync."""
        version = self.version

        async def one(request: SampleRequest) -> Rollout | Failure:
            return await draw(self.endpoint, request, version, self.tokenizer, self.options.request_timeout)

        async for outcome in as_completed(requests, one):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores by the deployment that samples."""

        async def one(request: ScoreRequest) -> Score | Failure:
            return await judge(self.endpoint, request, self.options.request_timeout)

        async for outcome in as_completed(requests, one):
            yield outcome

    async def save(self, path: Path) -> None:
        """Let the trainer save weights and optimizer; write down what it calls them."""
        await self.checkpoints.save(path, self.version)

    async def load(self, path: Path) -> None:
        """Take back what `save` wrote; the trainer may be another one by now."""
        self.serves_base = False
        self.version = await self.checkpoints.load(path)

    async def export(self, run_dir: Path) -> Path:
        """Save the final weights, make a model of them if one is asked for, and write down where they are."""
        return await export(run_dir, self.options, self.parts, self.watch)
