"""Prompts that were read into a cache, a row each, and the tokens that are sampled behind them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from distillkit.arrays import IntArray
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.model_cache import select_rows


@dataclass(slots=True)
class CachedRows:
    """What is cached of some sequences of `causal_lm`."""

    causal_lm: CausalLM
    cache: DynamicCache
    columns: int
    """Tokens of the longest row, which others are padded to."""
    lengths: Tensor
    """[batch, 1]: tokens of each row."""
    mask: Tensor | None
    """[batch, length]: 1 where a token is, 0 on the padding at the left; None where all rows have one length."""

    @classmethod
    def prefill(
        cls, causal_lm: CausalLM, prompts: Sequence[IntArray], *, left_padding: bool
    ) -> tuple["CachedRows", Tensor]:
        """Read prompts [P], and give the hidden states [batch, hidden] behind them.

        `left_padding`: they are padded, and go with a mask, also where they have one length; else they must have one.
        """
        device = causal_lm.device.device
        rows = [torch.tensor(prompt, dtype=torch.long, device=device) for prompt in prompts]
        lengths = torch.tensor([[len(row)] for row in rows], device=device)
        columns = max(map(len, rows))
        if not left_padding:
            found = cls(causal_lm, causal_lm.new_cache(), columns, lengths, None)
            ids = torch.stack(rows)
            return found, found._last_hidden(ids, torch.arange(columns, device=device).expand_as(ids))
        ids = pad_sequence(rows, batch_first=True, padding_side="left")
        mask = (torch.arange(columns, device=device) >= columns - lengths).long()
        found = cls(causal_lm, causal_lm.new_cache(), columns, lengths, mask)
        return found, found._last_hidden(ids, (mask.cumsum(1) - 1).clamp(min=0))

    def select(self, index: Tensor) -> None:
        """Hold the rows `index` [n] of those held: fewer, in another order, one several times."""
        select_rows(self.cache, index)
        self.lengths = self.lengths[index]
        self.mask = None if self.mask is None else self.mask[index]

    def decode(self, tokens: Tensor) -> Tensor:
        """Append one token [batch] to each row, and give the hidden states [batch, hidden] behind it."""
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.lengths, self.columns = self.lengths + 1, self.columns + 1
        return self._last_hidden(tokens[:, None], self.lengths - 1)

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Append one token [batch] to each row, and give float32 logits [batch, vocabulary] behind it."""
        return self.causal_lm.head(self.decode(tokens)).float()

    def _last_hidden(self, ids: Tensor, positions: Tensor) -> Tensor:
        mask = {} if self.mask is None else {"attention_mask": self.mask}
        return self.causal_lm.hidden_states(ids, self.cache, position_ids=positions, **mask)[:, -1]
