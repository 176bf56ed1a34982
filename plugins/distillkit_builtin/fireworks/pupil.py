"""The live side of student `fireworks`: its training client and its sampler, between open and close."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillkit.context import RunContext
from distillkit.tokenizer import Tokenizer
from distillkit.types import Batch, Failure, Rollout, SampleRequest, StepResult, Weights
from distillkit_builtin.fireworks.checkpoints import Checkpoints
from distillkit_builtin.fireworks.endpoint import Endpoint
from distillkit_builtin.fireworks.export import export
from distillkit_builtin.fireworks.sampling import draw
from distillkit_builtin.fireworks.service import Service
from distillkit_builtin.fireworks.stream import as_they_come
from distillkit_builtin.fireworks.trainer import TrainerParts
from distillkit_builtin.fireworks.training import adam_params, as_datums, step_metrics
from distillkit_builtin.fireworks.watch import SUBMIT_SECONDS, TrainerWatch

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
    version: int = 0
    serves_base: bool = False
    """The deployment is new and serves the base model, which is what version 0 of an untouched student is."""
    metrics_due: bool = True
    """Concurrency is measured once a publication, however many optimizer steps there are to it."""

    @classmethod
    async def open(cls, run: RunContext, options: "FireworksStudent", service: Service) -> "FireworksPupil":
        """Wait for everything that the run needs; load what the student starts from."""
        service.enter(run)
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
        return cls(options, service, parts, endpoint, tokenizer, watch, checkpoints, serves_base=base)

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step; both requests are sent before either is waited for."""
        client, timeout = self.parts.client, self.options.step_timeout
        params, normalization = adam_params(self.options), self.options.grad_accumulation_normalization

        def work() -> tuple[Any, Any]:
            datums, options = as_datums(batch), dict(batch.options)
            gradients = client.forward_backward(datums, batch.loss_function, loss_fn_config=options)
            step = client.optim_step(params, grad_accumulation_normalization=normalization)
            return gradients.result(timeout), step.result(timeout)

        self.serves_base = False
        gradients, step = await self.watch.call("a training step", 2 * timeout + SUBMIT_SECONDS, work)
        metrics = step_metrics(gradients, step)
        if self.metrics_due:
            metrics |= self.service.concurrency_metrics()
            self.metrics_due = False
        return StepResult(metrics)

    async def publish(self, version: int) -> Weights:
        """Save the current weights for sampling and hot-load them into the deployment."""
        if version or not self.serves_base or self.options.weight_sync_before_training:
            name = f"step-{version}"

            def work() -> None:
                saved = self.parts.client.save_weights_for_sampler_ext(name)
                self.parts.service.hotload_sampler_snapshot(saved.path)

            await self.watch.call(f"publishing weights as {name}", 2.0 * self.options.weight_sync_timeout, work)
            self.serves_base = False
        self.metrics_due = True
        return Weights(version, "live")

    async def sync(self, weights: Weights) -> None:
        """Rollouts carry this version from now on."""
        self.version = weights.version

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of the policy of the last sync."""
        version = self.version

        async def one(request: SampleRequest) -> Rollout | Failure:
            return await draw(self.endpoint, request, version, self.tokenizer, self.options.request_timeout)

        async for outcome in as_they_come(requests, one):
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
