"""Sampling completions by transformers' own forward, with the exact logprobs of the sampled tokens.

Each request has its own random numbers, one uniform u a token, and samples by inverse transform: the first token whose
cumulative probability exceeds u. So a completion does not depend on which others are in its batch (beyond rounding).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distillkit.records import Rollout
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.cached_rows import CachedRows
from distillkit_builtin.local.batches.shared_prompts import DistinctPrompts
from distillkit_builtin.local.fixed.fixed_rows import FixedDecoder, FixedRows
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.sampling.known_ids import KnownIds, is_greedy
from distillkit_builtin.local.sampling.sampled_draft import Draft, SampledTokens
from distillkit_builtin.local.sampling.token_tables import sampled_tables

FIRST_CANDIDATES = 512
"""Tokens of the vocabulary that top-p looks at; where they are too few, eight times as many."""


@dataclass(slots=True)
class PlainGenerator:
    """Samples batch after batch from one model. Memory and graphs of steps of fixed shapes stay for the next call.

    Where that is set, large memory makes way instead: for training, and for teachers that score.
    """

    causal_lm: CausalLM
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]
    """What ends every completion, besides its own `params.stop_ids`."""
    fixed: FixedDecoder | None = None
    """Decodes in steps of fixed shapes; None: in steps whose cache grows by every token."""
    ahead: bool | None = None
    """Whether the device begins what comes next before the host reads a token; None: where it is not the host's own."""
    gives_up: int | None = None
    """Bytes of keys, values and states from which on they and their graphs are freed at the end of a call; None: they
    always stay."""
    known: KnownIds = field(init=False)
    """Which ids are sampled."""

    def __post_init__(self) -> None:
        """Sample what the tokenizer has."""
        self.known = KnownIds.of(self.tokenizer)

    def generate(
        self, requests: Sequence[SampleRequest], size: int, version: int, emit: Callable[[Rollout], None]
    ) -> None:
        """Sample batches of `size` requests, without the adapter, and `emit` each completion when it ends.

        As `Generator.generate` says; `requests` have one set of sampling parameters and want the same.
        """
        together = [requests] if self.causal_lm.batching.left_padding else by_prompt_length(requests)
        try:
            for same in together:
                for start in range(0, len(same), size):
                    self.generate_batch(same[start : start + size], version, emit)
            if self.gives_up is not None and self.fixed is not None and self.fixed.size_bytes >= self.gives_up:
                self.free_caches()
        except torch.OutOfMemoryError:
            self.free_caches()
            raise

    def free_caches(self) -> bool:
        """Free memory and graphs of steps of fixed shapes, and return whether there were any."""
        return self.fixed is not None and self.fixed.free()

    @torch.inference_mode()
    def generate_batch(self, requests: Sequence[SampleRequest], version: int, emit: Callable[[Rollout], None]) -> None:
        """Sample all requests as one batch, without the adapter.

        Rollouts say that policy `version` made them; prompts have one length unless the model can be padded on the
        left. Raises Cancelled between two tokens.
        """
        with self.causal_lm.without_adapter():
            self._generate([Draft(request, self.tokenizer, self.eos_ids) for request in requests], version, emit)

    def _generate(self, drafts: list[Draft], version: int, emit: Callable[[Rollout], None]) -> None:
        rows, logits = self._prefill([draft.request for draft in drafts])
        uniforms = self._uniforms([draft.request for draft in drafts])
        for step in range(uniforms.shape[1]):
            self.causal_lm.device.raise_if_cancelled()
            sampled = self._sample(logits, uniforms[:, step], drafts[0].request)
            chosen = sampled.chosen
            ahead = (chosen.is_cuda if self.ahead is None else self.ahead) and step + 1 < uniforms.shape[1]
            if ahead:  # for rows that end here as well
                logits = rows.next_logits(chosen)
            sampled.append_to(drafts)
            for draft in drafts:
                if draft.finish_reason is not None:
                    emit(draft.rollout(version))
            keep = [row for row, draft in enumerate(drafts) if draft.finish_reason is None]
            if not keep:
                return
            if len(keep) < len(drafts):
                index = torch.tensor(keep, device=chosen.device)
                drafts, chosen, uniforms = [drafts[row] for row in keep], chosen[index], uniforms[index]
                rows.select(index)
                logits = logits[index]
            if not ahead:
                logits = rows.next_logits(chosen)

    def _uniforms(self, requests: Sequence[SampleRequest]) -> Tensor:
        """[batch, most tokens] float32 on the device: each request's own, as many as it may have tokens."""
        numbers = np.zeros((len(requests), _most_tokens(requests)), dtype=np.float32)
        for row, request in zip(numbers, requests, strict=True):
            count = request.params.max_tokens
            row[:count] = np.random.Generator(np.random.Philox(key=request.seed)).random(count, dtype=np.float32)
        return torch.from_numpy(numbers).to(self.causal_lm.device.device)

    def _prefill(self, requests: Sequence[SampleRequest]) -> tuple[CachedRows | FixedRows, Tensor]:
        """What is cached of the prompts, a row each, and float32 logits [batch, vocabulary] behind them.

        Each different prompt is computed once.
        """
        distinct = DistinctPrompts.of(request.prompt_ids for request in requests)
        left_padding = self.causal_lm.batching.left_padding
        prompts, hidden = CachedRows.prefill(self.causal_lm, distinct.prompts, left_padding=left_padding)
        index = torch.tensor(distinct.row_of, device=hidden.device)
        logits = self.causal_lm.head(hidden[index]).float()
        if self.fixed is not None:
            return self.fixed.start(prompts, index, _most_tokens(requests), logits.shape[1]), logits
        prompts.select(index)
        return prompts, logits

    def _sample(self, logits: Tensor, uniforms: Tensor, first: SampleRequest) -> SampledTokens:
        """One token a row of `logits` [batch, vocabulary] by `uniforms` [batch], with its logprob at temperature 1.

        Its parameters, and what is wanted besides, are those of the `first` request.
        """
        params, logprobs = first.params, torch.log_softmax(logits, dim=1)
        known = self.known.only(logprobs if params.is_untouched else logits)
        tables = sampled_tables(self.known.only(logprobs), first.wanted) if first.wanted else {}
        if is_greedy(params):
            chosen = known.argmax(1)
        else:
            chosen = sample_indices(known if params.is_untouched else truncated_logprobs(known, params), uniforms)
        taken = logprobs.gather(1, chosen[:, None]).squeeze(1)
        self.known.measure(logits, chosen, taken)
        return SampledTokens(chosen, taken, tables)


def _most_tokens(requests: Sequence[SampleRequest]) -> int:
    return max(request.params.max_tokens for request in requests)


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
