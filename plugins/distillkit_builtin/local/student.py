"""Student `local`: trained and sampled in this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sampler, Student
from distillkit.arrays import FloatArray
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.memory import MemoryReport
from distillkit.positions import READS
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.local.lora.starting_adapter import StartingAdapter, read_starting_adapter
from distillkit_builtin.local.model_files.bounded_tokenizer import model_tokenizer
from distillkit_builtin.local.model_files.fingerprint import adapter_digest, model_fingerprint, number_format
from distillkit_builtin.local.model_files.model_config import context_length, read_config, require_mergeable
from distillkit_builtin.local.model_files.sequence_lengths import too_long, without
from distillkit_builtin.local.options import LocalStudentOptions
from distillkit_builtin.local.requirements import LIBRARIES, local_report
from distillkit_builtin.published_weights import declare_whole_weights

if TYPE_CHECKING:
    from distillkit_builtin.local.live_student import LiveLocalStudent
    from distillkit_builtin.local.ranks.data_parallel import DataParallelStudent


class LocalStudent(LocalStudentOptions, Student, Sampler):
    """A LoRA, or all weights, trained in this process with PyTorch, transformers and PEFT."""

    role: ClassVar[str] = "student"
    name: ClassVar[str] = "local"
    spreads: ClassVar[bool] = True
    writes: ClassVar[frozenset[str]] = frozenset({"adapter", "base", "model", "weights"})
    volatile: ClassVar[frozenset[str]] = frozenset(
        {"device", "micro_batch_tokens", "gradient_checkpointing", "sample_batch_size", "forward", "compile", "shard"}
        | {"export_dtype", "loss_chunk_positions", "sampling_weights"}
    )

    libraries: ClassVar[frozenset[str]] = LIBRARIES

    _live: "LiveLocalStudent | DataParallelStudent | None" = PrivateAttr(None)

    @property
    def _samples(self) -> bool:
        """Whether the student is its own sampler."""
        return self.sampler is None

    def declare(self, run: RunContext) -> None:
        """Say of all weights that they are published: they replace a server's own."""
        if not self.lora_rank:
            declare_whole_weights(run)

    def check(self, run: RunContext) -> CheckReport:
        """Read the model's config; report what will be loaded and what it takes. Raises InputError if it cannot be."""
        read_config(self.model)
        if self.shard == "always" and (self.lora_rank or run.rank.count == 1):
            alone = "there is one process; start several by torchrun, or take auto"
            why = "a LoRA is never sharded; take auto" if self.lora_rank else alone
            raise InputError(f"student.shard: always cannot be used: {why}")
        if self.experts and not self._samples:
            raise InputError(
                "student.experts: servers do not load a LoRA on experts as PEFT writes it (vLLM ends, or serves the "
                "base); leave student.sampler out, or take student.experts: false"
            )
        start = self._starting_adapter()
        rank = self.lora_rank if start is None else start.rank
        trained = f"LoRA of rank {rank}" if rank else "all weights"
        report = local_report(
            self.model,
            f"student ({trained}{'' if start is None else f', from {start.folder}'})",
            self.device,
            self.dtype,
            run=run,
            lora_rank=rank,
            samples=self._samples,
            start=start,
        )
        if report.missing:
            return report
        layers = self._require_trainable(run, start)
        return report if layers is None else replace(report, notes=(*report.notes, f"student: {layers}"))

    def memory(self, run: RunContext) -> MemoryReport | None:
        """Weights, optimizer, activations, keys and values; None without a plan."""
        from distillkit_builtin.local.memory.reports import student_memory

        start = self._starting_adapter()
        rank = self.lora_rank if start is None else start.rank
        return None if run.plan is None else student_memory(run, run.plan, self, rank, samples=self._samples)

    def _require_trainable(self, run: RunContext, start: StartingAdapter | None) -> str | None:
        """What a LoRA is on. Raises InputError for what needs torch to be known, and can be known without weights."""
        from distillkit_builtin.local.device import device_in_check, require_compilable
        from distillkit_builtin.local.training.trainable_adapter import describe_layers

        if self.compile == "always":
            require_compilable(device_in_check(run, self.device))
        return describe_layers(self)

    def _starting_adapter(self) -> StartingAdapter | None:
        """The LoRA that is trained on. Raises InputError if it cannot be."""
        if self.adapter is None:
            return None
        return read_starting_adapter(self.adapter, self.model, self.chosen_ranks())

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`, or of the model."""
        return model_tokenizer(run, self.tokenizer_model or self.model, self.model)

    def context_length(self, run: RunContext) -> int | None:
        """In tokens, as the model's config says, or None."""
        return context_length(self.model)

    def fingerprint(self) -> Mapping[str, str]:
        """Digests of config and weights, or the revision on the hub, of the adapter that is trained on; the format."""
        found = {**model_fingerprint(self.model), **number_format(self.dtype, self.device)}
        return found if self.adapter is None else {**found, "starting adapter": adapter_digest(Path(self.adapter))}

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        """`topk` and `entropy`; `topk` of more than there are tokens ends with ids of -1."""
        return {"topk": None, "entropy": None}

    def loss_capabilities(self) -> frozenset[str]:
        """Everything: its own numbers, and those of teachers of scorer `local`."""
        return frozenset({*READS, "full"})

    async def open(self, run: RunContext) -> None:
        """Load the model, make LoRA and optimizer, and the copy that samples, unless another sampler is chosen."""
        from distillkit_builtin.local.ranks.data_parallel import open_student

        self._live = await open_student(run, self, samples=self._samples)

    def provenance(self) -> Mapping[str, JsonValue]:
        """Model, device, number formats, parameters trained and in all."""
        return {"model": self.model, **self._opened().provenance()}

    async def until_broken(self) -> None:
        """Return when a rank is gone; wait forever where there is one process."""
        await self._opened().until_broken()

    async def work(self, run: RunContext) -> Mapping[str, str]:
        """Sample, score and train shares of the run, as rank 0 commands; returns what came of it."""
        from distillkit_builtin.local.ranks.worker import run_worker

        return await run_worker(run, self, samples=self._samples)

    async def close(self) -> None:
        """Forget the model; the run frees it after its last user."""
        self._live = None

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step. Raises BadStepError, with the weights as they were."""
        return await self._opened().train(batch)

    async def logprobs(self, rollouts: Sequence[Rollout]) -> Sequence[FloatArray] | None:
        """Of completions' tokens under the weights that are trained; None with several ranks."""
        return await self._opened().logprobs(rollouts)

    async def route_gradients(self, batches: Sequence[Batch]) -> Sequence[Sequence[float]] | None:
        """Inner products of the batches' gradients; None where ranks hold a part of the weights each."""
        return await self._opened().route_gradients(batches)

    async def publish(self, version: int) -> Weights:
        """For this student's own sampler nothing is written; another one finds an adapter or model directory."""
        return await self._opened().publish(version, to_disk=not self._samples)

    async def sync(self, weights: Weights) -> None:
        """Merge the current weights into the sampling copy."""
        await self._opened().sync(weights)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Sample completions from the policy of the last sync."""
        for failure in (failures := list(too_long(self.model, requests))):
            yield failure
        async for rollout in self._opened().sample(without(requests, failures)):
            yield rollout

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score given tokens under the policy of the last sync, for evaluators."""
        for failure in (failures := list(too_long(self.model, requests))):
            yield failure
        async for score in self._opened().score(without(requests, failures)):
            yield score

    async def save(self, path: Path) -> None:
        """Weights, optimizer and scheduler, as safetensors."""
        await self._opened().save(path)

    async def load(self, path: Path) -> None:
        """Set weights, optimizer and scheduler to what `save` wrote into `path`."""
        await self._opened().load(path)

    async def export(self, run_dir: Path) -> Path:
        """`adapter/` in PEFT format, or `model/` where all weights were trained."""
        return await self._opened().export(run_dir)

    def from_export(self, path: Path) -> Student:
        """Starts from the adapter, on the model that it was trained on; or from the whole model."""
        if not self.lora_rank:
            return self.model_copy(update={"model": str(path)})
        base = path.parent / "base"  # where adapters had been merged into the model
        return self.model_copy(update={"adapter": str(path), **({"model": str(base)} if base.is_dir() else {})})

    def require_exportable(self, *, merged: bool) -> None:
        """Everything but a LoRA merged into a model in few bits."""
        if merged and self.lora_rank:
            require_mergeable(self.model)

    async def merge(self, run: RunContext, exported: Path, folder: Path) -> None:
        """A LoRA merged into `model`, or all weights; computed on the CPU."""
        from distillkit_builtin.local.export.merged_export import WholeExport, write_whole_model

        tokenizer = model_tokenizer(run, self.tokenizer_model or self.model, self.model)
        export = WholeExport(exported, self.model, self.export_dtype, tokenizer, run.stop_ids)
        await asyncio.to_thread(write_whole_model, export, folder)

    def _opened(self) -> "LiveLocalStudent | DataParallelStudent":
        if self._live is None:
            raise RuntimeError("LocalStudent is used before open() or after close()")
        return self._live
