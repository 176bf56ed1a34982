"""Drawing completions, with the exact logprobs of what was drawn.

Each request has its own random numbers, one uniform u a token, and draws by inverse transform: the first token whose
cumulative probability exceeds u. So a completion does not depend on which others are in its batch (beyond rounding).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from distillkit.arrays import IntArray, logprob_array, token_ids
from distillkit.records import FinishReason, Rollout
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.causal_lm import CausalLM

AT_FIRST = 512
"""Tokens of the vocabulary that top-p looks at; where they are too few, eight times as many."""


@dataclass(slots=True)
class _Draft:
    """A completion that is being drawn."""

    request: SampleRequest
    uniforms: Tensor
    """[max_tokens] float32 on the device."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Generator:
    """Draws from one causal_lm at one policy version."""

    causal_lm: CausalLM
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]
    policy_version: int

    @torch.inference_mode()
    def generate(self, requests: Sequence[SampleRequest], emit: Callable[[Rollout], None]) -> None:
        """Draw all requests as one batch; `emit` each completion when it ends. Raises Cancelled between two tokens."""
        alive = [_Draft(request, self._uniforms(request)) for request in requests]
        cache, mask, logits = self._prefill([draft.request.prompt_ids for draft in alive])
        while alive:
            self.causal_lm.device.raise_if_cancelled()
            chosen = self._choose(logits, alive)
            keep = [i for i, draft in enumerate(alive) if draft.finish_reason is None]
            for draft in alive:
                if draft.finish_reason is not None:
                    emit(self._rollout(draft))
            if len(keep) < len(alive):
                alive = [alive[i] for i in keep]
                if not alive:
                    return
                index = torch.tensor(keep, device=mask.device)
                cache.batch_select_indices(index)
                mask, chosen = mask[index], chosen[index]
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions = mask.sum(1, keepdim=True) - 1
            logits = self._forward(chosen[:, None], mask, positions, cache)

    def _uniforms(self, request: SampleRequest) -> Tensor:
        numbers = np.random.Generator(np.random.Philox(key=request.seed)).random(
            request.params.max_tokens, dtype=np.float32
        )
        return torch.from_numpy(numbers).to(self.causal_lm.device.device)

    def _prefill(self, prompts: Sequence[IntArray]) -> tuple[DynamicCache, Tensor, Tensor]:
        """Read each different prompt once, padded on the left; then one cache row a request."""
        device = self.causal_lm.device.device
        different: dict[bytes, int] = {}
        row_of = [different.setdefault(prompt.tobytes(), len(different)) for prompt in prompts]
        firsts = [prompts[row_of.index(row)] for row in range(len(different))]
        width = max(map(len, firsts))
        ids = torch.zeros(len(firsts), width, dtype=torch.long)
        mask = torch.zeros(len(firsts), width, dtype=torch.long)
        for row, prompt in enumerate(firsts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        cache = DynamicCache(config=self.causal_lm.model.config)
        logits = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        index = torch.tensor(row_of, device=device)
        cache.batch_select_indices(index)
        return cache, mask[index], logits[index]

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """Float32 logits [batch, vocabulary] of the last position."""
        hidden = self.causal_lm.hidden_states(ids, cache, attention_mask=mask, position_ids=positions)
        return self.causal_lm.head(hidden[:, -1]).float()

    def _choose(self, logits: Tensor, drafts: Sequence[_Draft]) -> Tensor:
        """Draw one token a row, and note it, its logprob at temperature 1, and whether the completion ends."""
        params = drafts[0].request.params
        logprobs = torch.log_softmax(logits, dim=1)
        if params.temperature == 0:
            chosen = logits.argmax(1)
        else:
            uniforms = torch.stack([draft.uniforms[len(draft.ids)] for draft in drafts])
            chosen = draw(logprobs if params.is_untouched else reshaped(logits, params), uniforms)
        taken = logprobs.gather(1, chosen[:, None]).squeeze(1).tolist()
        for draft, index, logprob in zip(drafts, chosen.tolist(), taken, strict=True):
            draft.ids.append(index)
            draft.logprobs.append(logprob)
            draft.finish_reason = self._ended(draft)
        return chosen

    def _ended(self, draft: _Draft) -> FinishReason | None:
        params = draft.request.params
        if draft.ids[-1] in self.eos_ids:
            return "stop"
        if params.stop and any(stop in self.tokenizer.decode(draft.ids) for stop in params.stop):
            return "stop"
        return "length" if len(draft.ids) == params.max_tokens else None

    def _rollout(self, draft: _Draft) -> Rollout:
        return Rollout(
            request=draft.request,
            policy_version=self.policy_version,
            token_ids=token_ids(draft.ids),
            logprobs=logprob_array(draft.logprobs),
            finish_reason=draft.finish_reason or "length",
            text=self.tokenizer.decode(draft.ids),
        )


def draw(logprobs: Tensor, uniforms: Tensor) -> Tensor:
    """Indices [batch] drawn by `logprobs` [batch, n], by inverse transform of `uniforms` [batch] in [0, 1)."""
    cumulative = logprobs.exp().cumsum(1)
    target = uniforms[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logprobs.shape[1] - 1)


def reshaped(logits: Tensor, params: SamplingParams) -> Tensor:
    """The logprobs [batch, n] that are drawn from: at the temperature, without what top-k and then top-p leave out.

    Tokens of one logit stay or go together, whatever their order.
    """
    logits = logits / params.temperature
    if params.top_k and params.top_k < logits.shape[1]:
        least = logits.topk(params.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if params.top_p < 1.0:
        logits = logits.masked_fill(logits < _least_of_nucleus(logits, params.top_p), -torch.inf)
    return torch.log_softmax(logits, dim=1)


def _least_of_nucleus(logits: Tensor, share: float) -> Tensor:
    """The least logit [batch, 1] of the likeliest tokens that together reach a probability of `share`.

    The likeliest few are tried first: ordering them takes a tenth of the time of ordering the whole vocabulary.
    """
    whole = logits.logsumexp(1, keepdim=True)
    few = AT_FIRST
    while True:
        likeliest = logits.topk(min(few, logits.shape[1]), dim=1).values
        law = (likeliest - whole).exp()
        before = law.cumsum(1) - law
        before[:, 0] = 0.0  # the likeliest token always stays
        if few >= logits.shape[1] or bool((before[:, -1] >= share).all()):
            return likeliest.masked_fill(before >= share, torch.inf).amin(1, keepdim=True)
        few *= 8
