"""Scoring without gradient: what all prompts of a batch begin with is computed once.

A privileged prompt is mostly the same for every row (instructions, answered examples), so this is most of the work.
"""

from collections.abc import AsyncIterator, Sequence

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import Array, logprob_array
from distillkit.records import Score, ScoreRequest
from distillkit.token_arrays import NO_ID
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.batches.micro_batching import padded_micro_batches
from distillkit_builtin.local.batches.shared_prompts import common_prefix_length
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.prefill_scoring import prefill_response_states
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse, ResponseStates
from distillkit_builtin.local.model.model_cache import select_rows
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.sampling.token_tables import scored_tables

MIN_SHARED = 16
"""Tokens. Below this, a second forward pass costs more than it saves."""


async def score_stream(
    causal_lm: CausalLM,
    backbone: FastBackbone | None,
    known: KnownIds,
    requests: Sequence[ScoreRequest],
    batch: AdaptiveBatchSize,
) -> AsyncIterator[Score]:
    """Scores under the model without its adapter, a micro-batch of `batch` tokens at a time, in the device's thread.

    Top-K ids are among the `known` ones.
    """
    one_length = not causal_lm.batching.right_padding
    waiting = _grouped(requests, batch.size, one_length=one_length)
    while waiting:
        group = waiting[0]
        try:
            scores = await causal_lm.device.run(_score, causal_lm, backbone, known, group)
        except torch.OutOfMemoryError as error:
            batch.shrink(error, max(map(_length, group)))
            waiting = _grouped([request for left in waiting for request in left], batch.size, one_length=one_length)
            continue
        waiting = waiting[1:]
        for score in scores:
            yield score


def _length(request: ScoreRequest) -> int:
    return len(request.prompt_ids) + len(request.token_ids)


def _grouped(requests: Sequence[ScoreRequest], max_tokens: int, *, one_length: bool) -> list[list[ScoreRequest]]:
    groups = padded_micro_batches(list(map(_length, requests)), max_tokens, one_length=one_length)
    return [[requests[i] for i in group] for group in groups]


def _score(
    causal_lm: CausalLM, backbone: FastBackbone | None, known: KnownIds, requests: Sequence[ScoreRequest]
) -> list[Score]:
    items = [PromptAndResponse(request.prompt_ids, request.token_ids) for request in requests]
    topk, at_ids = max(request.topk for request in requests), _at_ids(requests)
    with causal_lm.without_adapter():
        if topk or at_ids is not None:
            states = response_states(causal_lm, items, backbone)
            asked = None if at_ids is None else torch.from_numpy(at_ids).to(states.ids.device)
            found = {**scored_tables(causal_lm, states, known, topk, asked), "ids": states.ids}
        else:
            logprobs, ids = score_logprobs(causal_lm, items, backbone)
            found = {"logprobs": logprobs, "ids": ids}
    arrays = {name: values.cpu().numpy() for name, values in found.items()}
    ends = np.cumsum([len(item.response_ids) for item in items])
    return [
        _score_of(request, {name: values[end - len(request.token_ids) : end] for name, values in arrays.items()})
        for request, end in zip(requests, ends.tolist(), strict=True)
    ]


def _at_ids(requests: Sequence[ScoreRequest]) -> Array | None:
    """[R_1 + R_2 + ..., K] with the K of the request that wants the most; None where none wants any."""
    tables = [request.at_ids for request in requests]
    if all(table is None for table in tables):
        return None
    width = max(table.shape[1] for table in tables if table is not None)
    whole = np.full((sum(len(request.token_ids) for request in requests), width), NO_ID)
    start = 0
    for request, table in zip(requests, tables, strict=True):
        if table is not None:
            whole[start : start + len(table), : table.shape[1]] = table
        start += len(request.token_ids)
    return whole


def _score_of(request: ScoreRequest, found: dict[str, Array]) -> Score:
    """A request's part of what was found for its micro-batch, where others may have wanted more."""
    arrays: dict[str, Array] = {}
    if request.topk:
        arrays |= {name: found[name][:, : request.topk] for name in ("topk_ids", "topk_logprobs")}
    if request.at_ids is not None:
        arrays["at_logprobs"] = found["at_logprobs"][:, : request.at_ids.shape[1]]
    return Score(request, logprob_array(found["logprobs"]), found["ids"], arrays=arrays)


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
    shared = shared if len(items) > 1 and shared >= MIN_SHARED and causal_lm.batching.shared_prefix else 0
    if backbone is not None:
        return prefill_response_states(backbone, items, shared)
    if not shared:
        return causal_lm.response_states(items)
    prefix = causal_lm.new_cache()
    causal_lm.hidden_states(torch.tensor(items[0].prompt_ids[:shared], device=causal_lm.device.device)[None], prefix)
    select_rows(prefix, torch.zeros(len(items), dtype=torch.long, device=causal_lm.device.device))
    rest = [PromptAndResponse(item.prompt_ids[shared:], item.response_ids) for item in items]
    return causal_lm.response_states(rest, prefix, shared)
