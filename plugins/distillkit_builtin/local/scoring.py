"""Scoring under a frozen model: what all prompts of a batch begin with is read once.

A privileged prompt is mostly the same for every row (instructions, answered examples), so this is most of the work.
"""

from collections.abc import AsyncIterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from distillkit.arrays import IntArray, logprob_array, token_ids
from distillkit.records import Score, ScoreRequest
from distillkit_builtin.local.adaptive_batch_size import PartSize
from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse, micro_batches
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.prefill_scoring import read_logprobs

WORTH_SHARING = 16
"""Tokens. Below this, a second forward pass costs more than it saves."""


async def score_stream(causal_lm: CausalLM, requests: Sequence[ScoreRequest], part: PartSize) -> AsyncIterator[Score]:
    """Scores under the frozen causal_lm, a micro-batch of at most `part` tokens at a time, in the device's thread."""
    waiting = _grouped(requests, part.size)
    while waiting:
        group = waiting[0]
        try:
            scores = await causal_lm.device.run(_score, causal_lm, group)
        except torch.OutOfMemoryError as error:
            part.shrink(error, max(map(_length, group)))
            waiting = _grouped([request for left in waiting for request in left], part.size)
            continue
        waiting = waiting[1:]
        for score in scores:
            yield score


def _length(request: ScoreRequest) -> int:
    return len(request.prompt_ids) + len(request.rollout.token_ids)


def _grouped(requests: Sequence[ScoreRequest], max_tokens: int) -> list[list[ScoreRequest]]:
    return [[requests[i] for i in group] for group in micro_batches(list(map(_length, requests)), max_tokens)]


def _score(causal_lm: CausalLM, requests: Sequence[ScoreRequest]) -> list[Score]:
    items = [PromptAndResponse(request.prompt_ids, request.rollout.token_ids) for request in requests]
    with causal_lm.without_adapter():
        logprobs, ids = score_logprobs(causal_lm, items)
    lengths = [len(item.response_ids) for item in items]
    parts = zip(requests, logprobs.cpu().split(lengths), ids.cpu().split(lengths), strict=True)
    return [Score(request, logprob_array(mine.numpy()), token_ids(scored.numpy())) for request, mine, scored in parts]


@torch.inference_mode()
def score_logprobs(causal_lm: CausalLM, items: Sequence[PromptAndResponse]) -> tuple[Tensor, Tensor]:
    """Float32 logprobs and the ids they are of, the items' end to end [R_1 + R_2 + ...]."""
    shared = common_prefix([item.prompt_ids for item in items])
    worth_it = len(items) > 1 and shared >= WORTH_SHARING
    if isinstance(causal_lm.fast, FastBackbone):
        return read_logprobs(causal_lm.fast, items, shared if worth_it else 0)
    if not worth_it:
        return causal_lm.response_logprobs(items)
    read = DynamicCache(config=causal_lm.model.config)
    causal_lm.hidden_states(torch.tensor(items[0].prompt_ids[:shared], device=causal_lm.device.device)[None], read)
    read.batch_repeat_interleave(len(items))
    rest = [PromptAndResponse(item.prompt_ids[shared:], item.response_ids) for item in items]
    return causal_lm.response_logprobs(rest, read)


def common_prefix(prompts: Sequence[IntArray]) -> int:
    """How many tokens all prompts begin with; the last token of each is left over, since it predicts the response."""
    shortest = min(map(len, prompts)) - 1
    first = prompts[0][:shortest]
    different = [np.flatnonzero(prompt[:shortest] != first) for prompt in prompts[1:]]
    return min((int(places[0]) for places in different if places.size), default=shortest)
