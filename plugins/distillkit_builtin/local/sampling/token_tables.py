"""What is kept of a token's whole distribution: its most probable ids, the logprobs of given ids, its entropy.

All are of the model's own log-softmax over all rows, as the sampled tokens' logprobs are. Rows that no token has (see
`known_ids`) are among no top-K and in no entropy, since they are never sampled; nothing is renormalized for that.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from distillkit.token_arrays import NO_ID
from distillkit_builtin.local.model.causal_lm import CausalLM, ResponseStates
from distillkit_builtin.local.model.token_logprobs import CHUNK_TOKENS, ON_CUDA
from distillkit_builtin.local.sampling.known_ids import KnownIds

CHUNK_ON_CUDA = ON_CUDA // 2
"""Positions whose whole distributions exist at once: they are there in float32 too, which logprobs alone do without."""


def most_probable(logprobs: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids and logprobs [n, k] of `logprobs` [n, V], the most probable first; -1 and minus infinity where none is left.

    An id whose logprob is minus infinity is none.
    """
    count = min(k, logprobs.shape[1])
    values, ids = logprobs.topk(count, dim=1)
    ids = ids.masked_fill(values == -torch.inf, NO_ID)
    if count == k:
        return ids, values
    more = (0, k - count)
    return functional.pad(ids, more, value=NO_ID), functional.pad(values, more, value=-torch.inf)


def logprobs_at(logprobs: Tensor, ids: Tensor) -> Tensor:
    """[n, K] of `logprobs` [n, V] at `ids` [n, K]; minus infinity where an id is none, or beyond V."""
    there = (ids >= 0) & (ids < logprobs.shape[1])
    return logprobs.gather(1, ids.masked_fill(~there, 0)).masked_fill(~there, -torch.inf)


def entropy(logprobs: Tensor) -> Tensor:
    """[n] in nats of `logprobs` [n, V]; what has no probability adds nothing."""
    finite = logprobs.clamp(min=torch.finfo(logprobs.dtype).min)  # zero times minus infinity is no number
    result: Tensor = -torch.linalg.vecdot(logprobs.exp(), finite)
    return result


def sampled_tables(logprobs: Tensor, wanted: Mapping[str, int]) -> dict[str, Tensor]:
    """What is `wanted` of n sampled tokens, as `Rollout.arrays`: `logprobs` [n, V] have no rows without a token."""
    tables: dict[str, Tensor] = {}
    if "topk" in wanted:
        tables["topk_ids"], tables["topk_logprobs"] = most_probable(logprobs, wanted["topk"])
    if "entropy" in wanted:
        tables["entropy"] = entropy(logprobs)
    return tables


@torch.inference_mode()
def scored_tables(
    causal_lm: CausalLM, states: ResponseStates, known: KnownIds, topk: int, at_ids: Tensor | None
) -> dict[str, Tensor]:
    """The states' `logprobs` [n] and what else is wanted of n scored tokens, as `Score.arrays`, a chunk at a time."""
    size = CHUNK_ON_CUDA if states.hidden.is_cuda else CHUNK_TOKENS
    parts = [
        _chunk(causal_lm, ResponseStates(states.hidden[part], states.ids[part]), known, topk, _part(at_ids, part))
        for part in (slice(start, start + size) for start in range(0, len(states.ids), size))
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _part(ids: Tensor | None, part: slice) -> Tensor | None:
    return None if ids is None else ids[part]


def _chunk(
    causal_lm: CausalLM, states: ResponseStates, known: KnownIds, topk: int, at_ids: Tensor | None
) -> dict[str, Tensor]:
    logprobs = torch.log_softmax(causal_lm.head(states.hidden), dim=1, dtype=torch.float32)
    tables = {"logprobs": logprobs.gather(1, states.ids[:, None]).squeeze(1)}
    if at_ids is not None:
        tables["at_logprobs"] = logprobs_at(logprobs, at_ids)
    if topk:
        tables["topk_ids"], tables["topk_logprobs"] = most_probable(known.only(logprobs), topk)
    return tables
