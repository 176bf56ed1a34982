"""Which ids are sampled: those that the tokenizer has. Many models have more rows than that, as padding.

Such a row is never sampled. Logprobs stay the model's own log-softmax over all rows, on every path and for teachers
alike; so what is sampled from differs from it by the probability of those rows, which is measured.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from distillkit.tokenizer import Tokenizer
from distillkit.types import SamplingParams

NOTEWORTHY = 1e-4
"""The mean probability of rows without a token from which on the user is notified; a trained model has far less."""
GREEDY_BELOW = 1e-30
"""A temperature under which logits divided by it may leave float32; the most probable token is alone long before."""


def is_greedy(params: SamplingParams) -> bool:
    """Whether the most probable token is taken, as at temperature 0."""
    return params.temperature < GREEDY_BELOW


@dataclass(slots=True)
class KnownIds:
    """The ids of a tokenizer among a model's rows, and how probable the others were."""

    ids: frozenset[int]
    _missing: Tensor | None = None
    """[m]: the rows without a token."""
    _sums: Tensor | None = None
    """[2]: the probability of those rows, summed over sampled tokens, and how many tokens these were."""
    _notified: bool = False

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "KnownIds":
        """Every id that has a token."""
        return cls(frozenset(tokenizer.vocabulary().values()))

    def only(self, logits: Tensor) -> Tensor:
        """`logits` [n, vocabulary], -inf where there is no token; the same tensor where each id has one."""
        missing = self._missing_among(logits)
        return logits.index_fill(1, missing, -torch.inf) if missing.numel() else logits

    def measure(self, logits: Tensor, token: Tensor, logprob: Tensor, active: Tensor | None = None) -> None:
        """Count how probable rows without a token were where `token` [n] was sampled with `logprob` [n].

        `active` [n] says which rows of `logits` are completions. Nothing waits for the device, and a CUDA graph can
        hold it.
        """
        missing = self._missing_among(logits)
        if self._sums is None:
            return
        whole = logits.gather(1, token[:, None]).float() - logprob[:, None]
        mass = (logits[:, missing].float() - whole).exp().sum(1)
        counted = torch.ones_like(mass) if active is None else active.to(mass.dtype)
        self._sums += torch.stack([(mass * counted).sum(), counted.sum()])

    def notice(self) -> str | None:
        """What the user should know, once, if rows without a token were probable enough to matter."""
        if self._notified or self._sums is None or self._missing is None:
            return None
        mass, tokens = self._sums.tolist()
        self._notified = bool(tokens) and mass / tokens > NOTEWORTHY
        if self._notified:
            return (
                f"{mass / tokens:.2g} of the model's probability is on {len(self._missing)} rows that have "
                f"no token (the tokenizer has {len(self.ids)}). They are never sampled, and logprobs stay those of all "
                "rows, so completions are from a distribution that differs by as much; is it the model's own tokenizer?"
            )
        return None

    def _missing_among(self, logits: Tensor) -> Tensor:
        """[m], found at the first call: no model changes its number of rows."""
        if self._missing is None:
            rows = [index for index in range(logits.shape[1]) if index not in self.ids]
            self._missing = torch.tensor(rows, dtype=torch.long, device=logits.device)
            self._sums = torch.zeros(2, device=logits.device) if rows else None
        return self._missing
