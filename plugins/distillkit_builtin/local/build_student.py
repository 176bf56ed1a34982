"""Building what student `local` trains: its model, LoRA, optimizer, and the copy that samples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.seeds import derive_seed
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device, resolve_dtype
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.live_teacher import shared_base
from distillkit_builtin.local.lora.lora_placement import LayerOptions
from distillkit_builtin.local.memory.micro_batch_size import has_wide_layers, micro_batch_tokens
from distillkit_builtin.local.memory.room import total_bytes
from distillkit_builtin.local.memory.sampling_weights import merges_lora
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.footprint import footprint, model_structure
from distillkit_builtin.local.model.fused_ops import can_compile
from distillkit_builtin.local.options import LocalStudentOptions
from distillkit_builtin.local.packing.compiled_layers import compiles_unasked
from distillkit_builtin.local.ranks.agreement import Ways
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.training.asked_teachers import shared_teacher
from distillkit_builtin.local.training.chunked_loss import ChunkedLoss, chunk_size
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import OptimizerOptions, Trainer

MAX_SHARE_OF_MEMORY = 0.8
"""The share of a device's memory that weights and optimizer may take before they are sharded."""


@dataclass(frozen=True, slots=True)
class ProvedStudent:
    """A student that is loaded, and of which is known how it may be computed here."""

    policy: Policy
    sampling_copy: SamplingCopy | None
    """As of `BuiltStudent`."""
    ways: Ways
    """As this rank found them by itself."""

    def take(self, ways: Ways) -> None:
        """Compute by these ways from now on: its own, or the plainest of all ranks."""
        self.policy.packs = ways.packs
        for each in (self.policy, self.sampling_copy):
            if each is not None:
                each.causal_lm.batching = ways.batching


@dataclass(frozen=True, slots=True)
class BuiltStudent:
    """A student that is ready to train."""

    trainer: Trainer
    sampling_copy: SamplingCopy | None
    """None where another sampler is chosen: nothing here would read it."""


def prove_student(run: RunContext, options: LocalStudentOptions, device: Device, *, samples: bool) -> ProvedStudent:
    """Load the model and find how it may be computed, with a copy to sample from if the student `samples` by itself.

    Raises:
        InputError: if an option asks for what the model or the device does not support.
    """
    policy = _policy(run, options, device)
    merges = merges_lora(run, options, device.device)
    sampling_copy = SamplingCopy(policy.causal_lm, merges=merges) if samples else None
    if options.gradient_checkpointing:
        checkpoint_activations(policy.causal_lm.model)
    not_packed = None if options.forward == "plain" else _pack(policy, options)
    ways = Ways(policy.causal_lm.batching, policy.packs, not_packed, whole=not shards(options, device.device, run))
    return ProvedStudent(policy, sampling_copy, ways)


def build_student(
    run: RunContext,
    options: LocalStudentOptions,
    device: Device,
    proved_student: ProvedStudent,
    ways: Ways,
    notify: Callable[[str], None],
) -> BuiltStudent:
    """Build what trains a student by these `ways`, which are the same on every rank.

    Raises:
        InputError: if an option asks for what the model or the device does not support.
    """
    proved_student.take(ways)
    policy = proved_student.policy
    if ways.not_packed is not None:
        notify(f"sequences are padded in training, not packed: {ways.not_packed}")
    if not policy.packs:
        _tell_batching(policy, notify)
    if not ways.whole:
        _require_padding(policy)
        policy.shard(run.rank.count)
    if options.compile == "always" or (options.compile == "auto" and _compiles(policy, device)):
        _compile(policy, options)
    optimizer = _optimizer_options(run, options, device.device)
    return BuiltStudent(
        Trainer(policy, optimizer, _chunked_loss(run, options, device.device)), proved_student.sampling_copy
    )


def _chunked_loss(run: RunContext, options: LocalStudentOptions, device: torch.device) -> ChunkedLoss:
    """Ids beyond the tokenizer's get no probability."""
    tokenizer = shared_tokenizer(run, options.tokenizer_model or options.model, options.model)
    known = 1 + max(tokenizer.vocabulary().values())
    return ChunkedLoss(chunk_size(options.loss_chunk_positions, device), known, partial(shared_teacher, run))


def _policy(run: RunContext, options: LocalStudentOptions, device: Device) -> Policy:
    dtype = resolve_dtype(options.dtype, device.device)
    if options.lora_rank:
        base = shared_base(run, options.model, device, dtype)
        target_modules, experts = options.layers()
        layers: LayerOptions = {"target_modules": target_modules, "experts": experts}
        if options.adapter is not None:
            return Policy.lora_from(base, Path(options.adapter), options.lora_dropout, **layers)
        return Policy.lora(base, options.lora_rank, options.lora_alpha, options.lora_dropout, run.seed, **layers)
    return Policy.full(proved(CausalLM.load(options.model, device, dtype, torch.float32)))


def _pack(policy: Policy, options: LocalStudentOptions) -> str | None:
    """Train on packed sequences, if they are known to give the same; else why not.

    Raises InputError if that was requested and cannot be.
    """
    try:
        policy.pack()
    except UnsupportedModelError as reason:
        if options.forward == "fast":
            raise InputError(f"forward: fast cannot be used in training: {reason}; take auto") from reason
        return str(reason)
    return None


def _tell_batching(policy: Policy, notify: Callable[[str], None]) -> None:
    """Say where training takes sequences of one length together."""
    for note in policy.causal_lm.batching.training_notes(type(policy.causal_lm.model).__name__):
        notify(note)


def _require_padding(policy: Policy) -> None:
    """Raise InputError where ranks could not take equally many micro-batches: nothing is packed or padded."""
    if not (policy.packs or policy.causal_lm.batching.right_padding):
        raise InputError(
            f"student.shard: the weights of {type(policy.causal_lm.model).__name__} cannot be sharded: its sequences "
            "cannot be padded, so ranks would compute different numbers of micro-batches; take never"
        )


def _compiles(policy: Policy, device: Device) -> bool:
    """Whether layers are compiled without being asked for."""
    known = compiles_unasked(policy.causal_lm.model.config)
    return policy.packs and known and device.device.type == "cuda" and can_compile()


def _compile(policy: Policy, options: LocalStudentOptions) -> None:
    """Compile what is trained. Raises InputError if it cannot be."""
    try:
        policy.compile(recompute=recomputes(options))
    except UnsupportedModelError as reason:
        raise InputError(f"compile: always cannot be used: {reason}; take auto") from reason


def recomputes(options: LocalStudentOptions) -> bool:
    """Whether compiled layers keep what products give, and compute anew what stands between them."""
    return options.lora_rank > 0 and has_wide_layers(model_structure(options.model))


def shards(options: LocalStudentOptions, device: torch.device, run: RunContext) -> bool:
    """Whether each rank keeps a part of what is trained; of a planned run, on the card that it is planned for."""
    if options.shard == "auto" and run.rank.count > 1 and not options.lora_rank and device.type == "cuda":
        needed = footprint(options.model, device, options.dtype).training_bytes(0)
        return needed > MAX_SHARE_OF_MEMORY * total_bytes(device, run.planned_device)
    return options.shard == "always"


def _optimizer_options(run: RunContext, options: LocalStudentOptions, device: torch.device) -> OptimizerOptions:
    rank = run.rank.index
    tokens = micro_batch_tokens(options, device, run.planned_device)
    return OptimizerOptions(
        learning_rate=options.learning_rate,
        schedule=options.lr_schedule if options.lr_schedule != "constant" else "constant_with_warmup",
        warmup_steps=options.warmup_steps,
        total_steps=run.plan.optimizer_steps if run.plan else 1,
        weight_decay=options.weight_decay,
        betas=options.adam_betas,
        grad_clip_norm=options.grad_clip_norm,
        micro_batch_tokens=tokens,
        seed=derive_seed(run.seed, "rank", rank) if rank else run.seed,
    )
