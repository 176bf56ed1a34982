"""Logprobs of given responses by the fast backbone; what several sequences begin with is read once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distillkit.arrays import IntArray
from distillkit_builtin.local.causal_lm import PromptAndResponse
from distillkit_builtin.local.fast.attention import Before, Causal, Kept
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.token_logprobs import token_logprobs

WORTH_IT = 0.1
"""The share of all tokens that must be saved for prompts with several responses to be read on their own."""


@torch.inference_mode()
def read_logprobs(backbone: FastBackbone, items: Sequence[PromptAndResponse], shared: int) -> tuple[Tensor, Tensor]:
    """Float32 logprobs and the ids they are of, the items' end to end; all prompts begin with the same `shared` tokens.

    A prompt that several responses follow is read once, if that saves enough. The last token of a response predicts
    nothing, and is not read. Sequences are padded on the right: causal attention never looks there.
    """
    reader = _Reader(backbone, *backbone.rotary(max(map(len, items))))
    before = reader.beginning(items[0].prompt_ids[:shared], len(items)) if shared else []
    starts = [shared] * len(items)
    different, rows = _different([item.prompt_ids for item in items])
    if _saved(items, different, shared) >= WORTH_IT * sum(len(item) - shared for item in items):
        before.append(reader.prompts([prompt[shared:-1] for prompt in different], rows, before, shared))
        starts = [len(item.prompt_ids) - 1 for item in items]
    return reader.responses(items, starts, before)


def _different(prompts: Sequence[IntArray]) -> tuple[list[IntArray], list[int]]:
    """The prompts without repetition, and which of them each is."""
    places: dict[bytes, int] = {}
    rows = [places.setdefault(prompt.tobytes(), len(places)) for prompt in prompts]
    return [prompts[rows.index(place)] for place in range(len(places))], rows


def _saved(items: Sequence[PromptAndResponse], different: Sequence[IntArray], shared: int) -> int:
    """Tokens that need not be read where each prompt is read once."""
    every = sum(len(item.prompt_ids) - 1 - shared for item in items)
    return every - sum(len(prompt) - 1 - shared for prompt in different)


@dataclass(frozen=True, slots=True)
class _Reader:
    backbone: FastBackbone
    cos: Tensor
    """[length, d], as `sin`."""
    sin: Tensor

    def beginning(self, ids: IntArray, count: int) -> list[Before]:
        """Read what stands before all of `count` sequences."""
        none = torch.zeros(count, dtype=torch.long, device=self.cos.device)
        kept: Kept = []
        self._read([ids], [0], [], kept)
        return [Before(kept, none, torch.tensor([len(ids)], device=self.cos.device))]

    def prompts(self, prompts: Sequence[IntArray], rows: Sequence[int], before: Sequence[Before], start: int) -> Before:
        """Read each prompt from `start` on; they stand before the sequences that `rows` names."""
        kept: Kept = []
        self._read(prompts, [start] * len(prompts), [_for(part, len(prompts)) for part in before], kept)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.cos.device)
        return Before(kept, torch.tensor(rows, device=self.cos.device), lengths)

    def responses(
        self, items: Sequence[PromptAndResponse], starts: Sequence[int], before: Sequence[Before]
    ) -> tuple[Tensor, Tensor]:
        """Read the items from `starts` on, each behind what stands before it."""
        whole = [torch.cat([torch.tensor(item.prompt_ids), torch.tensor(item.response_ids)]) for item in items]
        rows = [ids[start:-1].numpy() for ids, start in zip(whole, starts, strict=True)]
        hidden = self._read(rows, starts, before, None)
        length = max(map(len, rows))
        where = torch.cat(
            [
                torch.arange(len(item.prompt_ids) - 1, len(item) - 1) - start + row * length
                for row, (item, start) in enumerate(zip(items, starts, strict=True))
            ]
        ).to(self.cos.device)
        scored = torch.cat([torch.tensor(item.response_ids) for item in items]).to(self.cos.device)
        return token_logprobs(self.backbone.causal_lm.head, hidden[where], scored), scored

    def _read(
        self, rows: Sequence[IntArray], starts: Sequence[int], before: Sequence[Before], kept: Kept | None
    ) -> Tensor:
        """Hidden states [rows * longest, hidden] of token ids that stand at `starts` and after."""
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(self.cos.device)
        length = ids.shape[1]
        positions = torch.tensor(starts, device=self.cos.device)[:, None] + torch.arange(length, device=ids.device)
        # Padding may stand behind the last position that has an angle; what it is turned by does not matter.
        positions = positions.flatten().clamp(max=len(self.cos) - 1)
        attend = Causal.behind(length, self.backbone.scale, before, kept)
        return self.backbone(ids.flatten(), self.cos[positions], self.sin[positions], attend)


def _for(beginning: Before, count: int) -> Before:
    """The one beginning of everything, before `count` sequences."""
    return Before(beginning.kept, beginning.rows.new_zeros(count), beginning.lengths)
