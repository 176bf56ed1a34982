"""What student and teachers `local` will hold: their `memory`."""

from collections.abc import Mapping

import torch
from pydantic import JsonValue

from distillkit import MemoryReport, MemoryUse, Plan, RunContext
from distillkit_builtin.local.batches.adaptive_batch_size import default_batch_size
from distillkit_builtin.local.build_student import recomputes, shards
from distillkit_builtin.local.device import device_in_check
from distillkit_builtin.local.fast.kv_slots import LARGE
from distillkit_builtin.local.live_teacher import SCORED, SCORED_ON_CUDA
from distillkit_builtin.local.memory.inference_sizes import (
    keeps_slots,
    routed_numbers,
    samples_fast,
    sampling_bytes,
    scoring_bytes,
    slot_bytes,
)
from distillkit_builtin.local.memory.micro_batch_size import has_wide_layers, micro_batch_tokens
from distillkit_builtin.local.memory.packing_expected import packs
from distillkit_builtin.local.memory.room import device_memory, host_memory
from distillkit_builtin.local.memory.sampling_weights import merges_lora
from distillkit_builtin.local.memory.training_sizes import LossChunks, Passes
from distillkit_builtin.local.memory.training_trace import Training
from distillkit_builtin.local.memory.work import Work
from distillkit_builtin.local.model.footprint import Footprint, footprint
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.local.options import LocalScorerOptions, LocalStudentOptions
from distillkit_builtin.local.packing.compiled_layers import compiles_unasked
from distillkit_builtin.local.training.chunked_loss import chunk_size, positions_at_once
from distillkit_builtin.local.training.micro_batch_loss import reads_logprobs_alone
from distillkit_builtin.local.training.trainable_adapter import lora_size
from distillkit_builtin.model_source import resolve_model

LIBRARIES = 600 * 2**20
"""Bytes that Python and its libraries take on the host."""
SMALLER_BATCH, SMALLER_LORA, SMALLER_CHUNK = 4096, 16, 64


def teacher_memory(run: RunContext, plan: Plan, source: str, options: LocalScorerOptions) -> MemoryReport:
    """Of a frozen teacher, which may be the base of the student's LoRA or another teacher's model."""
    device = device_in_check(run, options.device)
    size = footprint(source, device, options.dtype)
    tokens = options.micro_batch_tokens or default_batch_size(device, SCORED_ON_CUDA, SCORED)
    work = Work.of(plan, run.rank, longest_prompt=plan.longest_teacher_prompt)
    what = f"one micro-batch of at most {tokens:,} tokens"
    scoring = scoring_bytes(size, work, tokens, routed_numbers(read_config(source)))
    uses = [*_frozen(run, source, size), MemoryUse(size.device, "scoring", what, scoring)]
    savers: list[Mapping[str, JsonValue]] = []
    if tokens > SMALLER_BATCH:
        savers.append({"micro_batch_tokens": SMALLER_BATCH})
    if options.dtype == "float32":
        savers.append({"dtype": "bfloat16"})
    return _report(run, device, (*uses, *_loaded(source, size, size.dtype)), savers)


def student_memory(
    run: RunContext, plan: Plan, options: LocalStudentOptions, lora_rank: int, *, samples: bool
) -> MemoryReport:
    """Of the student, with a LoRA of this rank (0: all weights); `samples`: it is its own sampler."""
    device = device_in_check(run, options.device)
    size = footprint(options.model, device, options.dtype)
    work = Work.of(plan, run.rank, longest_prompt=plan.longest_prompt)
    uses = [*_trained(run, options, lora_rank, size, samples=samples)]
    chunks = _chunks(run, options, device, lora_rank)
    tokens = micro_batch_tokens(options, device, run.planned_device)
    uses += _passes(options, lora_rank, size, work, tokens, chunks).use()
    if samples:
        uses += _sampling(options, size, work)
    stored = torch.float32 if lora_rank == 0 else size.dtype
    uses += _loaded(options.model, size, stored)
    if device.type != "cpu":
        lora = lora_size(options)
        trained = size.structure.text_parameters if lora is None else lora.trained
        uses.append(MemoryUse("cpu", "saving", "weights and moments on their way to the disk", 12 * trained))
    savers = _savers(options, lora_rank, size, run.rank.count, tokens, samples=samples)
    if samples and lora_rank and size.quantization is None and merges_lora(run, options, device):
        savers.append({"sampling_weights": "adapter"})
    if chunks is not None and chunk_size(options.loss_chunk_positions, device).size > SMALLER_CHUNK:
        savers.append({"loss_chunk_positions": SMALLER_CHUNK})
    return _report(run, device, tuple(uses), savers)


def _trained(
    run: RunContext, options: LocalStudentOptions, lora_rank: int, size: Footprint, *, samples: bool
) -> list[MemoryUse]:
    """Weights, gradients, moments, and the copy that samples."""
    where = size.device
    lora = lora_size(options)
    frozen = size.training_bytes(lora_rank, samples=False, lora=lora)
    merges = merges_lora(run, options, device_in_check(run, options.device))
    copy = size.training_bytes(lora_rank, lora=lora, merges=merges) - frozen if samples else 0
    what = "the copy that samples" if merges else "what samples of the LoRA"
    uses = [MemoryUse(where, "weights", what, copy)]
    if lora_rank:
        uses += _frozen(run, options.model, size)
        return [*uses, MemoryUse(where, "weights", "the LoRA, its gradient and moments", frozen)]
    ranks = run.rank.count if shards(options, device_in_check(run, options.device), run) else 1
    parts = f", a part in each of {ranks} processes" if ranks > 1 else ""
    trained = size.training_bytes(0, samples=False) // ranks
    return [*uses, MemoryUse(where, "weights", f"float32 weights, gradients and moments{parts}", trained)]


def _frozen(run: RunContext, source: str, size: Footprint) -> list[MemoryUse]:
    """A frozen model's weights, of the first of the run's plugins that share it."""
    key = ("counts", source, size.device, str(size.dtype))
    if run.share(key, lambda: run.user) != run.user:
        return []
    return [MemoryUse(size.device, "weights", f"frozen weights of {resolve_model(source).base}", size.weight_bytes)]


def _chunks(run: RunContext, options: LocalStudentOptions, device: torch.device, lora_rank: int) -> LossChunks | None:
    """How the loss is computed in chunks; None where it is not."""
    chunk = chunk_size(options.loss_chunk_positions, device).size
    if reads_logprobs_alone(run.loss_reads):
        return None if lora_rank else LossChunks(positions_at_once(chunk, run.loss_reads), distributions=False)
    asked = run.teachers if "full" in run.loss_reads else ()
    widths = tuple(int(read_config(teacher.model).get_text_config().hidden_size) for teacher in asked)
    return LossChunks(chunk, distributions=True, teachers_hidden=widths)


def _passes(
    options: LocalStudentOptions, lora_rank: int, size: Footprint, work: Work, tokens: int, chunks: LossChunks | None
) -> Passes:
    cuda = size.device.startswith("cuda")
    packed = packs(options.model, size, options.forward)
    compiles = options.compile == "always" or (
        options.compile == "auto" and compiles_unasked(read_config(options.model))
    )
    compiled = packed and cuda and compiles
    traced = options.model, size.dtype, lora_rank, packed and not cuda, options.gradient_checkpointing
    target_modules, experts = options.layers()
    training = Training(*traced, target_modules=target_modules, experts=experts, head=chunks is None)
    routed = routed_numbers(read_config(options.model))
    return Passes(training, size, work, tokens, compiled, routed, compiled and recomputes(options), chunks)


def _sampling(options: LocalStudentOptions, size: Footprint, work: Work) -> list[MemoryUse]:
    config = read_config(options.model)
    fast = samples_fast(config, size, options.forward)
    slots = work.slots(options.sample_batch_size)
    sampling = sampling_bytes(size, work, slots, routed_numbers(config), fast=fast)
    uses = [MemoryUse(size.device, "sampling", "prompts and logits", sampling)]
    if keeps_slots(size, fast=fast):
        what = f"keys and values of {slots} completions of {work.length:,} tokens"
        held = slot_bytes(size, work, slots)
        stays = held < LARGE or not has_wide_layers(size.structure)
        uses.append(MemoryUse(size.device, "caches" if stays else "sampling", what, held))
    return uses


def _loaded(source: str, size: Footprint, stored: torch.dtype) -> list[MemoryUse]:
    """What the host holds while a model is read for another device; adapters are merged in float32."""
    width = 4 if resolve_model(source).adapters else stored.itemsize
    if size.device == "cpu":
        extra = size.structure.parameters * (width - stored.itemsize)
        return [MemoryUse("cpu", "loading", "float32 weights, to merge adapters", extra)] if extra else []
    return [MemoryUse("cpu", "loading", f"weights of {resolve_model(source).base}", size.structure.parameters * width)]


def _report(
    run: RunContext, device: torch.device, uses: tuple[MemoryUse, ...], savers: list[Mapping[str, JsonValue]]
) -> MemoryReport:
    devices = [device_memory(device, run.rank, run.planned_device)]
    if device.type != "cpu" and run.planned_device is None:
        devices.append(host_memory(run.rank))
    if run.share(("libraries",), lambda: run.user) == run.user:
        uses = (*uses, MemoryUse("cpu", "weights", "Python and its libraries", LIBRARIES))
    known = {memory.device for memory in devices}
    return MemoryReport(
        tuple(devices), tuple(use for use in uses if use.device in known and use.size_bytes), tuple(savers)
    )


def _savers(
    options: LocalStudentOptions, lora_rank: int, size: Footprint, ranks: int, tokens: int, *, samples: bool
) -> list[Mapping[str, JsonValue]]:
    """Changes of options that would lower it."""
    savers: list[Mapping[str, JsonValue]] = []
    if not options.gradient_checkpointing:
        savers.append({"gradient_checkpointing": True})
    if tokens > SMALLER_BATCH // 4:
        savers.append({"micro_batch_tokens": max(SMALLER_BATCH // 4, tokens // 4)})
    if samples and options.sample_batch_size > 1:
        savers.append({"sample_batch_size": options.sample_batch_size // 4 or 1})
    if lora_rank == 0 and size.quantization is None:
        savers.append({"lora_rank": SMALLER_LORA})
    if options.dtype == "float32":
        savers.append({"dtype": "bfloat16"})
    if lora_rank == 0 and options.shard == "never" and ranks > 1:
        savers.append({"shard": "always"})
    return savers
