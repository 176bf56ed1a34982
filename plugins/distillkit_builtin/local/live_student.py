"""The live side of student `local`, between open and close. Imported when used, since it needs torch."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from distillkit.arrays import FloatArray
from distillkit.context import RunContext
from distillkit.records import Rollout, Score, ScoreRequest, Weights
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer, shared_tokenizer
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.build_student import ProvedStudent, build_student, prove_student
from distillkit_builtin.local.device import Device, shared_device
from distillkit_builtin.local.export.export import export, write_weights
from distillkit_builtin.local.fast.kv_slots import LARGE
from distillkit_builtin.local.inference.inference_model import InferenceModel
from distillkit_builtin.local.memory.micro_batch_size import has_wide_layers
from distillkit_builtin.local.model.footprint import model_structure
from distillkit_builtin.local.options import LocalStudentOptions
from distillkit_builtin.local.ranks.agreement import Ways
from distillkit_builtin.local.resolved import resolved_policy
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.collectives import broadcast_weights
from distillkit_builtin.local.training.own_logprobs import own_logprobs
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.route_gradients import gradient_products
from distillkit_builtin.local.training.trainer import GradientShare, Trainer
from distillkit_builtin.local.training.trainer_checkpoint import SavedTrainer


@dataclass(frozen=True, slots=True)
class OwnSampling:
    """The model copy with which a student samples by itself."""

    copy: SamplingCopy
    inference: InferenceModel
    """Samples and scores with the copy."""


@dataclass(slots=True)
class LiveLocalStudent:
    """The student's trainer on one device, and what samples, unless another sampler does."""

    options: LocalStudentOptions
    run: RunContext
    device: Device
    tokenizer: HFTokenizer
    trainer: Trainer
    sampling: OwnSampling | None
    version: int = 0

    @classmethod
    async def open(cls, run: RunContext, options: LocalStudentOptions, *, samples: bool) -> "LiveLocalStudent":
        """Load and build everything where this process is alone; `samples`: the student is its own sampler.

        Raises:
            InputError: if an option asks for what the model or the device does not support.
        """
        proved = await load_proved(run, options, samples=samples)
        return await cls.build(run, options, proved, proved.ways)

    @classmethod
    async def build(
        cls, run: RunContext, options: LocalStudentOptions, proved: ProvedStudent, ways: Ways
    ) -> "LiveLocalStudent":
        """Build everything of a loaded model in the device's thread, to be computed by these `ways`.

        Raises:
            InputError: as `open`.
        """
        device = shared_device(run, options.device)
        messages: list[str] = []
        built = await device.run(build_student, run, options, device, proved, ways, messages.append)
        for message in messages:
            run.notify(message)
        tokenizer = shared_tokenizer(run, options.tokenizer_model or options.model, options.model)
        sampling = None
        if built.sampling_copy is not None:
            inference = await _open_inference(run, options, built.sampling_copy, tokenizer, built.trainer)
            sampling = OwnSampling(built.sampling_copy, inference)
        return cls(options, run, device, tokenizer, built.trainer, sampling)

    @property
    def policy(self) -> Policy:
        """The policy that is trained, which the trainer holds."""
        return self.trainer.policy

    def provenance(self) -> dict[str, JsonValue]:
        """Device, number formats and sizes."""
        return resolved_policy(self.policy, None if self.sampling is None else self.sampling.inference)

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step. Raises BadStepError, with the weights as they were."""
        try:
            return await self.device.run(self.trainer.step, batch)
        finally:
            self.trainer.report(self.run.notify)

    async def logprobs(self, rollouts: Sequence[Rollout]) -> Sequence[FloatArray]:
        """Of completions' tokens, under the weights that are trained."""
        return await self.device.run(own_logprobs, self.policy, rollouts, self.trainer.micro_batch.size)

    async def route_gradients(self, batches: Sequence[Batch]) -> Sequence[Sequence[float]] | None:
        """Inner products of the batches' gradients; None where weights are sharded. Raises BadStepError."""
        return await self.device.run(gradient_products, self.trainer, batches)

    async def until_broken(self) -> None:
        """Waits for ever: nothing but this process is needed."""
        await asyncio.get_running_loop().create_future()

    async def compute_gradient(self, batch: Batch, parts: int | None = None) -> GradientShare:
        """The gradient of a batch, for `apply_gradient`; as `Trainer.compute_gradient`."""
        try:
            return await self.device.run(self.trainer.compute_gradient, batch, parts)
        finally:
            self.trainer.report(self.run.notify)

    async def apply_gradient(self) -> dict[str, float]:
        """Sum the gradients of all ranks, and move the weights; returns the step's metrics."""
        return await self.device.run(self.trainer.apply_summed_gradient)

    async def take_broadcast(self) -> None:
        """Take rank 0's weights on every rank; the same seed made them, but a device may have rounded."""
        if self.policy.sharded is None:
            await self.device.run(broadcast_weights, self.policy.trained.values())

    async def join_save(self) -> None:
        """Give this rank's part of what rank 0 saves at the same time."""
        await self.device.run(self.trainer.tensors)

    async def join_export(self) -> None:
        """Give this rank's part of what rank 0 writes at the same time."""
        await self.device.run(self.policy.whole_weights)

    async def publish(self, version: int, *, to_disk: bool) -> Weights:
        """The current weights as policy `version`; on disk there is nothing but what a server loads."""
        if not to_disk or self.run.run_dir is None:
            return Weights(version, "live")
        folder = self.run.run_dir / "weights" / f"version-{version}"
        path = await self.device.run(write_weights, self.policy, folder)
        keep = {folder.name, f"version-{self.version}"}  # the one before may still be what a server serves
        for old in [path for path in folder.parent.iterdir() if path.name not in keep]:
            await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)
        self.version = version
        return Weights(version, "peft" if self.options.lora_rank else "safetensors", path)

    async def sync(self, weights: Weights) -> None:
        """Sample from the current weights from now on."""
        await self.device.run(self._own_sampling().copy.refresh)
        self.version = weights.version

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """Completions of the policy of the last sync, each when it ends."""
        async for rollout in self._own_sampling().inference.sample(requests, self.version):
            yield rollout

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Logprobs under the policy of the last sync."""
        async for score in self._own_sampling().inference.score(requests):
            yield score

    async def save(self, path: Path) -> None:
        """Write weights, optimizer and scheduler into the directory `path`."""
        await self.device.run(self.trainer.save, path)

    async def load(self, path: Path) -> None:
        """Set weights, optimizer and scheduler to what `save` wrote into `path`; notifies if the plan has changed."""
        await self.take_saved(await self.read_saved(path))

    async def read_saved(self, path: Path) -> SavedTrainer:
        """What `save` wrote into `path`. Raises RunFailedError if it is of another student."""
        return await self.device.run(self.trainer.read, path)

    async def take_saved(self, saved: SavedTrainer) -> None:
        """Set weights, optimizer and scheduler to it; without tensors to those that rank 0 takes at the same time."""
        note = await self.device.run(self.trainer.take, saved)
        if note is not None and self.run.plan is not None:  # without a plan nothing is going to be trained
            self.run.notify(note)

    async def export(self, run_dir: Path) -> Path:
        """Write the final weights for others to use; returns their directory."""
        what = self.policy, self.tokenizer, run_dir, self.options.model, self.run.stop_ids, self.options.export_dtype
        exported = await self.device.run(export, *what)
        if exported.problem is not None:
            self.run.notify(exported.problem, "warning")
        return exported.path

    def _own_sampling(self) -> OwnSampling:
        if self.sampling is None:
            raise RuntimeError("student 'local' is asked to sample or score, and was opened for another sampler")
        return self.sampling


async def load_proved(run: RunContext, options: LocalStudentOptions, *, samples: bool) -> ProvedStudent:
    """The model, loaded in the device's thread, with the ways in which this rank may compute it.

    Raises:
        InputError: as `LiveLocalStudent.open`.
    """
    device = shared_device(run, options.device)
    return await device.run(prove_student, run, options, device, samples=samples)


async def _open_inference(
    run: RunContext, options: LocalStudentOptions, copy: SamplingCopy, tokenizer: HFTokenizer, trainer: Trainer
) -> InferenceModel:
    sample_batch = AdaptiveBatchSize(options.sample_batch_size, "completions", "student.sample_batch_size")
    score_batch = AdaptiveBatchSize(trainer.micro_batch.size, "tokens", "student.micro_batch_tokens")
    inference = await InferenceModel.open(
        copy.causal_lm,
        tokenizer,
        options.forward,
        known=KnownIds.of(tokenizer),
        sample_batch=sample_batch,
        score_batch=score_batch,
        notify=run.notify,
    )
    await inference.choose_decoder()
    if has_wide_layers(model_structure(options.model)):
        inference.generator.gives_up = LARGE  # graphs are captured anew in the time of a few tokens
    for adaptive in (trainer.chunked.chunk, trainer.micro_batch, score_batch):
        adaptive.free_caches = inference.generator.free_caches
    return inference
