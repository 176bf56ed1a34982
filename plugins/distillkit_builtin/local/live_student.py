"""The live side of student `local`: what it holds between open and close. Imported when used, since it needs torch."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.ranks import Rank
from distillkit.records import Batch, Rollout, Score, ScoreRequest, StepResult, Weights
from distillkit.seeds import derive_seed
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer, shared_tokenizer
from distillkit_builtin.local.adaptive_batch_size import PartSize, tokens_at_once
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.device import Device, resolve_dtype, shared_device
from distillkit_builtin.local.export import write_weights
from distillkit_builtin.local.fast.backbone import UnsupportedModelError
from distillkit_builtin.local.fast.fused_ops import compiles
from distillkit_builtin.local.footprint import Footprint, anatomy
from distillkit_builtin.local.generator import Drawer, drawer_for
from distillkit_builtin.local.live_teacher import shared_base, stream
from distillkit_builtin.local.policy import Policy
from distillkit_builtin.local.ranks.collectives import take_over
from distillkit_builtin.local.requirements import ForwardName
from distillkit_builtin.local.scoring import score_stream
from distillkit_builtin.local.trainer import Gathered, OptimizerOptions, Trainer

if TYPE_CHECKING:
    from distillkit_builtin.local.student import LocalStudent

TRAINED_ON_CUDA, TRAINED = 16_384, 4096
"""Tokens of a micro-batch, unless the user says."""


@dataclass(slots=True)
class LiveLocalStudent:
    """The student's policy and trainer on one device."""

    options: "LocalStudent"
    run: RunContext
    device: Device
    tokenizer: HFTokenizer
    policy: Policy
    trainer: Trainer
    drawer: Drawer
    drawn: PartSize
    scored: PartSize
    version: int = 0

    @classmethod
    async def open(cls, run: RunContext, options: "LocalStudent") -> "LiveLocalStudent":
        """Load and build everything in the device's thread."""
        device = shared_device(run, options.device)
        told: list[str] = []
        policy, trainer = await device.run(build, run, options, device, told.append)
        tokenizer = shared_tokenizer(run, options.tokenizer_model or options.model)
        drawer = await device.run(drawer_for, policy.sampler, tokenizer, options.forward, told.append)
        for message in told:
            run.notify(message)
        drawn = PartSize(options.sample_batch_size, "completions", "student.sample_batch_size")
        scored = PartSize(trainer.part.size, "tokens", "student.micro_batch_tokens")
        trainer.part.spare = scored.spare = drawer.release
        return cls(options, run, device, tokenizer, policy, trainer, drawer, drawn, scored)

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step."""
        try:
            return await self.device.run(self.trainer.step, batch)
        finally:
            self.trainer.part.tell(self.run.notify)

    async def until_broken(self) -> None:
        """Nobody else is needed: for ever."""
        await asyncio.get_running_loop().create_future()

    async def gather(self, batch: Batch, parts: int | None = None) -> Gathered:
        """The gradient of a batch, for `apply`; see `Trainer.gather`."""
        try:
            return await self.device.run(self.trainer.gather, batch, parts)
        finally:
            self.trainer.part.tell(self.run.notify)

    async def apply(self) -> dict[str, float]:
        """Sum the gradients of all ranks, and move the weights."""
        return await self.device.run(self.trainer.apply_all)

    async def take_over(self) -> None:
        """Rank 0's weights on every rank; the same seed made them, but a device may have rounded."""
        if self.policy.sharded is None:
            await self.device.run(take_over, self.policy.trained.values())

    async def help_to_save(self) -> None:
        """This rank's part of what rank 0 saves at the same time."""
        await self.device.run(self.trainer.tensors)

    async def help_to_export(self) -> None:
        """This rank's part of what rank 0 exports at the same time."""
        await self.device.run(self.policy.whole_weights)

    async def publish(self, version: int, *, to_disk: bool) -> Weights:
        """The current weights as policy `version`."""
        if not to_disk or self.run.run_dir is None:
            return Weights(version, "live")
        folder = self.run.run_dir / "weights" / f"version-{version}"
        path = await self.device.run(write_weights, self.policy, self.tokenizer, folder, self.options.model)
        keep = {folder.name, f"version-{self.version}"}  # the one before may still be what a server serves
        for old in [path for path in folder.parent.iterdir() if path.name not in keep]:
            await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)
        self.version = version
        return Weights(version, "peft" if self.options.lora_rank else "safetensors", path)

    async def sync(self, weights: Weights) -> None:
        """Sample from the current weights from now on."""
        await self.device.run(self.policy.refresh_sampler)
        self.version = weights.version

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """Completions of the policy of the last sync."""
        async for rollout in stream(self.device, self.drawer, self.version, requests, self.drawn):
            yield rollout
        self.drawn.tell(self.run.notify)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Logprobs under the policy of the last sync."""
        async for score in score_stream(self.policy.sampler, requests, self.scored):
            yield score
        self.scored.tell(self.run.notify)

    async def save(self, path: Path) -> None:
        """Weights, optimizer and scheduler."""
        await self.device.run(self.trainer.save, path)

    async def load(self, path: Path) -> None:
        """Take back what `save` wrote."""
        told = await self.device.run(self.trainer.load, path)
        if told is not None:
            self.run.notify(told)

    async def export(self, run_dir: Path) -> Path:
        """The final weights for others to use."""
        return await self.device.run(write_weights, self.policy, self.tokenizer, run_dir, self.options.model)


def build(
    run: RunContext, options: "LocalStudent", device: Device, tell: Callable[[str], None]
) -> tuple[Policy, Trainer]:
    """The student's causal_lm, LoRA and optimizer; `tell` hears what the user should know."""
    dtype = resolve_dtype(options.dtype, device.device)
    if options.lora_rank:
        causal_lm = shared_base(run, options.model, device, dtype)
        policy = Policy.lora(causal_lm, options.lora_rank, options.lora_alpha, options.lora_dropout, run.seed)
    else:
        policy = Policy.full(CausalLM.load(options.model, device, dtype, torch.float32))
    if options.gradient_checkpointing:
        policy.causal_lm.model.activation_checkpointing_enable()
    is_cuda = device.device.type == "cuda"
    if options.forward != "plain":
        pack(policy, options.forward, tell)
    if shards(options, device.device, run.rank):
        policy.shard(run.rank.count)
    if options.compile == "always" or (options.compile == "auto" and policy.packs and is_cuda and compiles()):
        compile_layers(policy)
    rank = run.rank.index
    trainer = Trainer(
        policy,
        OptimizerOptions(
            learning_rate=options.learning_rate,
            schedule=options.lr_schedule if options.lr_schedule != "constant" else "constant_with_warmup",
            warmup_steps=options.warmup_steps,
            total_steps=run.plan.optimizer_steps if run.plan else 1,
            weight_decay=options.weight_decay,
            betas=options.adam_betas,
            grad_clip_norm=options.grad_clip_norm,
            micro_batch_tokens=options.micro_batch_tokens or tokens_at_once(device.device, TRAINED_ON_CUDA, TRAINED),
            seed=derive_seed(run.seed, "rank", rank) if rank else run.seed,
        ),
    )
    return policy, trainer


def pack(policy: Policy, forward: ForwardName, tell: Callable[[str], None]) -> None:
    """Train on packed sequences, if they are known to give the same. Raises InputError if that was asked for."""
    try:
        policy.pack()
    except UnsupportedModelError as reason:
        if forward == "fast":
            raise InputError(f"forward: fast cannot be used in training: {reason}; take auto") from reason
        tell(f"sequences are padded in training, not packed: {reason}")


def compile_layers(policy: Policy) -> None:
    """Compile what is trained. Raises InputError if it cannot be."""
    try:
        policy.compile()
    except UnsupportedModelError as reason:
        raise InputError(f"compile: always cannot be used: {reason}; take auto") from reason


FULL = 0.8
"""The share of a device's memory that weights and optimizer may take before they are sharded."""


def shards(options: "LocalStudent", device: torch.device, rank: Rank) -> bool:
    """Whether each rank keeps a part of what is trained."""
    if options.shard == "auto" and rank.count > 1 and not options.lora_rank and device.type == "cuda":
        size = Footprint(anatomy(options.model), str(device), resolve_dtype(options.dtype, device))
        needed = size.training_bytes(0)
        return needed > FULL * torch.cuda.get_device_properties(device).total_memory
    return options.shard == "always"
