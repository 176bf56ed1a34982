"""Sampling completions by transformers' own forward, with the exact logprobs of the sampled tokens.

Each request has its own random numbers, one uniform u a token, and samples by inverse transform: the first token whose
cumulative probability exceeds u. So a completion does not depend on which others are in its batch (beyond rounding).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import Array, IntArray, logprob_array, token_ids
from distillkit.records import FinishReason, Rollout
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.cached_rows import CachedRows
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.known_ids import KnownIds, is_greedy
from distillkit_builtin.local.shared_prompts import DistinctPrompts
from distillkit_builtin.local.token_tables import sampled_tables

FIRST_CANDIDATES = 512
"""Tokens of the vocabulary that top-p looks at; where they are too few, eight times as many."""


@dataclass(slots=True)
class _Draft:
    """A completion that is being sampled."""

    request: SampleRequest
    uniforms: Tensor
    """[max_tokens] float32 on the device."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    """[max_tokens, ...] of what the request wants besides, as far as tokens are sampled."""
    finish_reason: FinishReason | None = None

    def keep(self, name: str, value: Array) -> None:
        """Keep what is wanted [...] of the token that is sampled next."""
        if name not in self.arrays:
            self.arrays[name] = np.empty((self.request.params.max_tokens, *value.shape), value.dtype)
        self.arrays[name][len(self.ids)] = value


@dataclass(frozen=True, slots=True)
class PlainGenerator:
    """Samples batch after batch from one model."""

    causal_lm: CausalLM
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]
    """What ends every completion, besides its own `params.stop_ids`."""
    known: KnownIds = field(init=False)
    """Which ids are sampled."""

    def __post_init__(self) -> None:
        """Sample what the tokenizer has."""
        object.__setattr__(self, "known", KnownIds.of(self.tokenizer))

    def generate(
        self, requests: Sequence[SampleRequest], size: int, version: int, emit: Callable[[Rollout], None]
    ) -> None:
        """Sample batches of `size` requests, without the adapter, and `emit` each completion when it ends.

        As `Generator.generate` says; `requests` have one set of sampling parameters and want the same.
        """
        together = [requests] if self.causal_lm.batching.left_padding else by_prompt_length(requests)
        with self.causal_lm.without_adapter():
            for same in together:
                for start in range(0, len(same), size):
                    self.generate_batch(same[start : start + size], version, emit)

    def free_caches(self) -> bool:
        """False: no memory is kept from call to call."""
        return False

    @torch.inference_mode()
    def generate_batch(self, requests: Sequence[SampleRequest], version: int, emit: Callable[[Rollout], None]) -> None:
        """Sample all requests as one batch from the model as it stands, with its adapter where that is on.

        Rollouts say that policy `version` made them; prompts have one length unless the model can be padded on the
        left. Raises Cancelled between two tokens.
        """
        active = [_Draft(request, self._uniforms(request)) for request in requests]
        rows, logits = self._prefill([draft.request.prompt_ids for draft in active])
        while active:
            self.causal_lm.device.raise_if_cancelled()
            chosen = self._sample(logits, active)
            keep = [i for i, draft in enumerate(active) if draft.finish_reason is None]
            for draft in active:
                if draft.finish_reason is not None:
                    emit(self._rollout(draft, version))
            if len(keep) < len(active):
                active = [active[i] for i in keep]
                if not active:
                    return
                index = torch.tensor(keep, device=chosen.device)
                rows.select(index)
                chosen = chosen[index]
            logits = self._logits(rows.decode(chosen))

    def _uniforms(self, request: SampleRequest) -> Tensor:
        numbers = np.random.Generator(np.random.Philox(key=request.seed)).random(
            request.params.max_tokens, dtype=np.float32
        )
        return torch.from_numpy(numbers).to(self.causal_lm.device.device)

    def _prefill(self, prompts: Sequence[IntArray]) -> tuple[CachedRows, Tensor]:
        """What is cached of the prompts, a row each, and the logits [batch, vocabulary] behind them.

        Each different prompt is computed once.
        """
        distinct, left_padding = DistinctPrompts.of(prompts), self.causal_lm.batching.left_padding
        rows, hidden = CachedRows.prefill(self.causal_lm, distinct.prompts, left_padding=left_padding)
        index = torch.tensor(distinct.row_of, device=hidden.device)
        rows.select(index)
        return rows, self._logits(hidden[index])

    def _logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [batch, vocabulary] of hidden states [batch, hidden]."""
        return self.causal_lm.head(hidden).float()

    def _sample(self, logits: Tensor, drafts: Sequence[_Draft]) -> Tensor:
        """Sample one token a row [batch]; add it, its logprob at temperature 1 and its finish reason to its draft."""
        params = drafts[0].request.params
        logprobs = torch.log_softmax(logits, dim=1)
        known = self.known.only(logprobs if params.is_untouched else logits)
        self._keep_tables(logprobs, drafts)
        if is_greedy(params):
            chosen = known.argmax(1)
        else:
            uniforms = torch.stack([draft.uniforms[len(draft.ids)] for draft in drafts])
            chosen = sample_indices(known if params.is_untouched else truncated_logprobs(known, params), uniforms)
        taken = logprobs.gather(1, chosen[:, None]).squeeze(1)
        self.known.measure(logits, chosen, taken)
        for draft, index, logprob in zip(drafts, chosen.tolist(), taken.tolist(), strict=True):
            draft.ids.append(index)
            draft.logprobs.append(logprob)
            draft.finish_reason = self._finish_reason(draft)
        return chosen

    def _keep_tables(self, logprobs: Tensor, drafts: Sequence[_Draft]) -> None:
        """Keep what the requests want of their next token's distributions `logprobs` [batch, vocabulary]."""
        wanted = drafts[0].request.wanted
        tables = sampled_tables(self.known.only(logprobs), wanted) if wanted else {}
        for name, values in tables.items():
            for draft, value in zip(drafts, values.cpu().numpy(), strict=True):
                draft.keep(name, value)

    def _finish_reason(self, draft: _Draft) -> FinishReason | None:
        params = draft.request.params
        if draft.ids[-1] in self.eos_ids or draft.ids[-1] in params.stop_ids:
            return "stop"
        if params.stop and any(stop in self.tokenizer.decode(draft.ids) for stop in params.stop):
            return "stop"
        return "length" if len(draft.ids) == params.max_tokens else None

    def _rollout(self, draft: _Draft, version: int) -> Rollout:
        return Rollout(
            request=draft.request,
            policy_version=version,
            token_ids=token_ids(draft.ids),
            logprobs=logprob_array(draft.logprobs),
            finish_reason=draft.finish_reason or "length",
            text=self.tokenizer.decode(draft.ids),
            arrays={name: values[: len(draft.ids)] for name, values in draft.arrays.items()},
        )


def by_prompt_length(requests: Sequence[SampleRequest]) -> list[list[SampleRequest]]:
    """The requests in groups whose prompts have one length, the short ones first."""
    groups: dict[int, list[SampleRequest]] = {}
    for request in requests:
        groups.setdefault(len(request.prompt_ids), []).append(request)
    return [groups[length] for length in sorted(groups)]


def sample_indices(logprobs: Tensor, uniforms: Tensor) -> Tensor:
    """Indices [batch] sampled by `logprobs` [batch, n], by inverse transform of `uniforms` [batch] in [0, 1)."""
    cumulative = logprobs.exp().cumsum(1)
    whole = cumulative[:, -1:]
    # Below the sum also where rounding makes it equal: what stands behind the last that has a probability has none.
    target = torch.minimum(uniforms[:, None] * whole, whole.nextafter(torch.zeros_like(whole)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logprobs.shape[1] - 1)


def truncated_logprobs(logits: Tensor, params: SamplingParams) -> Tensor:
    """The logprobs [batch, n] that are sampled from: at the temperature, -inf where top-k and then top-p cut.

    Tokens with equal logits are kept or cut together, whatever their order.
    """
    logits = logits / params.temperature
    if params.top_k and params.top_k < logits.shape[1]:
        threshold = logits.topk(params.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if params.top_p < 1.0:
        logits = logits.masked_fill(logits < _top_p_threshold(logits, params.top_p), -torch.inf)
    return torch.log_softmax(logits, dim=1)


def _top_p_threshold(logits: Tensor, share: float) -> Tensor:
    """The least logit [batch, 1] of the most likely tokens that together reach a probability of `share`.

    The few most likely are tried first: ordering them takes a tenth of the time of ordering the whole vocabulary.
    """
    whole = logits.logsumexp(1, keepdim=True)
    count = FIRST_CANDIDATES
    while True:
        highest = logits.topk(min(count, logits.shape[1]), dim=1).values
        probabilities = (highest - whole).exp()
        before = probabilities.cumsum(1) - probabilities
        before[:, 0] = 0.0  # the most likely token always stays
        if count >= logits.shape[1] or bool((before[:, -1] >= share).all()):
            return highest.masked_fill(before >= share, torch.inf).amin(1, keepdim=True)
        count *= 8
