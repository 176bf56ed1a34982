"""The live side of scorer `local`: a frozen model. Imported when used, since it needs torch."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.types import SampleRequest, Teacher
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize, default_batch_size
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device, resolve_dtype, shared_device
from distillkit_builtin.local.inference.inference_model import InferenceModel
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.options import LocalScorerOptions
from distillkit_builtin.local.resolved import resolved_forward, resolved_model
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.training.asked_teachers import share_teacher

SAMPLED_AT_ONCE = 64
"""Completions."""
SCORED_ON_CUDA, SCORED = 16_384, 8192
"""Tokens that are scored at once, unless the user sets another number."""


def shared_base(run: RunContext, source: str, device: Device, dtype: torch.dtype) -> CausalLM:
    """The run's one frozen copy of a model; the student's adapter, if it is the same model, sits on top of it."""
    key = ("base", source, str(device.device), str(dtype))
    return run.share(key, lambda: proved(CausalLM.load(source, device, dtype, dtype)))


@dataclass(frozen=True, slots=True)
class LiveLocalTeacher:
    """One teacher's model, which scores and samples."""

    inference: InferenceModel

    @classmethod
    async def open(cls, run: RunContext, teacher: Teacher, options: LocalScorerOptions) -> "LiveLocalTeacher":
        """Load the model in the device's thread, or share one that the run has. Raises InputError if it cannot be."""
        device = shared_device(run, options.device)
        dtype = resolve_dtype(options.dtype, device.device)
        causal_lm = await device.run(shared_base, run, teacher.model, device, dtype)
        tokenizer = shared_tokenizer(run, teacher.tokenizer_model or teacher.model, teacher.model)
        tokens = options.micro_batch_tokens or default_batch_size(device.device, SCORED_ON_CUDA, SCORED)
        inference = await InferenceModel.open(
            causal_lm,
            tokenizer,
            options.forward,
            known=KnownIds.of(tokenizer if run.tokenizer is None else run.tokenizer),
            sample_batch=AdaptiveBatchSize(SAMPLED_AT_ONCE, "completions", "fewer held-out rows"),
            score_batch=AdaptiveBatchSize(tokens, "tokens", "scorer.micro_batch_tokens"),
            notify=run.notify,
        )
        share_teacher(run, teacher.name, inference)  # for a student that asks it again in training
        return cls(inference)

    def provenance(self) -> dict[str, JsonValue]:
        """Device, number format and size."""
        return {**resolved_model(self.inference.causal_lm), "forward": resolved_forward(self.inference)}

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score]:
        """Scores, a micro-batch at a time."""
        return self.inference.score(requests)

    def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout]:
        """The teacher's own completions, each when it ends."""
        return self.inference.sample(requests, version=0)
