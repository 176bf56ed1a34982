"""Scoring without gradient: what all prompts of a batch begin with is computed once.

A privileged prompt is mostly the same for every row (instructions, answered examples), so this is most of the work.
"""

from collections.abc import AsyncIterator, Sequence

import torch
from torch import Tensor

from distillkit.arrays import logprob_array, token_ids
from distillkit.records import Score, ScoreRequest
from distillkit_builtin.local.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse, ResponseStates
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.prefill_scoring import prefill_response_states
from distillkit_builtin.local.micro_batching import padded_micro_batches
from distillkit_builtin.local.shared_prompts import common_prefix_length

MIN_SHARED = 16
"""Tokens. Below this, a second forward pass costs more than it saves."""


async def score_stream(
    causal_lm: CausalLM, backbone: FastBackbone | None, requests: Sequence[ScoreRequest], batch: AdaptiveBatchSize
) -> AsyncIterator[Score]:
    """Scores under the model without its adapter, a micro-batch of `batch` tokens at a time, in the device's thread."""
    waiting = _grouped(requests, batch.size)
    while waiting:
        group = waiting[0]
        try:
            scores = await causal_lm.device.run(_score, causal_lm, backbone, group)
        except torch.OutOfMemoryError as error:
            batch.shrink(error, max(map(_length, group)))
            waiting = _grouped([request for left in waiting for request in left], batch.size)
            continue
        waiting = waiting[1:]
        for score in scores:
            yield score


def _length(request: ScoreRequest) -> int:
    return len(request.prompt_ids) + len(request.rollout.token_ids)


def _grouped(requests: Sequence[ScoreRequest], max_tokens: int) -> list[list[ScoreRequest]]:
    return [[requests[i] for i in group] for group in padded_micro_batches(list(map(_length, requests)), max_tokens)]


def _score(causal_lm: CausalLM, backbone: FastBackbone | None, requests: Sequence[ScoreRequest]) -> list[Score]:
    items = [PromptAndResponse(request.prompt_ids, request.rollout.token_ids) for request in requests]
    with causal_lm.without_adapter():
        logprobs, ids = score_logprobs(causal_lm, items, backbone)
    lengths = [len(item.response_ids) for item in items]
    parts = zip(requests, logprobs.cpu().split(lengths), ids.cpu().split(lengths), strict=True)
    return [Score(request, logprob_array(mine.numpy()), token_ids(scored.numpy())) for request, mine, scored in parts]


@torch.inference_mode()
def score_logprobs(
    causal_lm: CausalLM, items: Sequence[PromptAndResponse], backbone: FastBackbone | None = None
) -> tuple[Tensor, Tensor]:
    """Float32 logprobs and the ids they are of, the items' end to end [R_1 + R_2 + ...].

    `backbone` is the model's fast one; None: by transformers' own forward.
    """
    states = response_states(causal_lm, items, backbone)
    return causal_lm.logprobs(states), states.ids


@torch.inference_mode()
def response_states(
    causal_lm: CausalLM, items: Sequence[PromptAndResponse], backbone: FastBackbone | None = None
) -> ResponseStates:
    """What the head reads of the items' responses, by `backbone` as in `score_logprobs`."""
    shared = common_prefix_length([item.prompt_ids for item in items])
    shared = shared if len(items) > 1 and shared >= MIN_SHARED else 0
    if backbone is not None:
        return prefill_response_states(backbone, items, shared)
    if not shared:
        return causal_lm.response_states(items)
    prefix = causal_lm.new_cache()
    causal_lm.hidden_states(torch.tensor(items[0].prompt_ids[:shared], device=causal_lm.device.device)[None], prefix)
    prefix.batch_repeat_interleave(len(items))
    rest = [PromptAndResponse(item.prompt_ids[shared:], item.response_ids) for item in items]
    return causal_lm.response_states(rest, prefix)
