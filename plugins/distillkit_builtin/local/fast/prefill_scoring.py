"""Hidden states of given responses by the fast backbone; what several sequences begin with is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distillkit.arrays import IntArray
from distillkit_builtin.local.batches.shared_prompts import DistinctPrompts
from distillkit_builtin.local.fast.attention import CausalAttention, KeysValues, Prefix, copied_into
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.rotary import RotaryAngles
from distillkit_builtin.local.model.causal_lm import PromptAndResponse, ResponseStates

MIN_SAVING, ON_CUDA = 0.1, 0.35
"""The share of all tokens that must be saved for prompts with several responses to be computed on their own.

A GPU waits for the host in so small a pass, and masks cost what attention to whole sequences does not: with a quarter
saved it took 1.03 times as long, with 29% 1.05, with two thirds 0.58 (one H100, benchmarks/NOTES.md)."""


@torch.inference_mode()
def prefill_response_states(backbone: FastBackbone, items: Sequence[PromptAndResponse], shared: int) -> ResponseStates:
    """What the head reads of the items' responses; all prompts begin with the same `shared` tokens.

    A prompt that several responses follow is computed once, if that saves enough. The last token of a response predicts
    nothing, and is left out. Sequences are padded on the right: causal attention never looks there.
    """
    prefill = _Prefill(backbone, backbone.rotary(max(map(len, items))))
    prefixes = prefill.common(items[0].prompt_ids[:shared], len(items)) if shared else []
    starts = [shared] * len(items)
    distinct = DistinctPrompts.of(item.prompt_ids for item in items)
    if saves_enough(items, distinct.prompts, shared, prefill.device):
        own = [prompt[shared:-1] for prompt in distinct.prompts]
        prefixes.append(prefill.prompts(own, distinct.row_of, prefixes, shared))
        starts = [len(item.prompt_ids) - 1 for item in items]
    return prefill.responses(items, starts, prefixes)


def saves_enough(
    items: Sequence[PromptAndResponse], distinct: Sequence[IntArray], shared: int, device: torch.device
) -> bool:
    """Whether a pass of their own saves enough on this device, for each of the `distinct` prompts.

    It would begin behind the `shared` tokens with which all begin.
    """
    every = sum(len(item.prompt_ids) - 1 - shared for item in items)
    saved = every - sum(len(prompt) - 1 - shared for prompt in distinct)
    least = ON_CUDA if device.type == "cuda" else MIN_SAVING
    return saved >= least * sum(len(item) - shared for item in items)


@dataclass(frozen=True, slots=True)
class _Prefill:
    backbone: FastBackbone
    angles: RotaryAngles

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return self.backbone.causal_lm.device.device

    def common(self, ids: IntArray, count: int) -> list[Prefix]:
        """Compute what stands before all of `count` sequences."""
        zeros = torch.zeros(count, dtype=torch.long, device=self.device)
        kept: KeysValues = []
        self._forward([ids], [0], [], kept)
        return [Prefix(kept, zeros, torch.tensor([len(ids)], device=self.device))]

    def prompts(
        self, prompts: Sequence[IntArray], rows: Sequence[int], prefixes: Sequence[Prefix], start: int
    ) -> Prefix:
        """Compute each prompt from position `start` on; they stand before the sequences that `rows` names."""
        kept: KeysValues = []
        before = [_before_each(prefix, len(prompts)) for prefix in prefixes]
        self._forward(prompts, [start] * len(prompts), before, kept)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        return Prefix(kept, torch.tensor(rows, device=self.device), lengths)

    def responses(
        self, items: Sequence[PromptAndResponse], starts: Sequence[int], prefixes: Sequence[Prefix]
    ) -> ResponseStates:
        """Compute the items from positions `starts` on, each behind what stands before it."""
        whole = [torch.cat([torch.tensor(item.prompt_ids), torch.tensor(item.response_ids)]) for item in items]
        rows = [ids[start:-1].numpy() for ids, start in zip(whole, starts, strict=True)]
        hidden = self._forward(rows, starts, prefixes, None)
        length = max(map(len, rows))
        predicting = torch.cat(
            [
                torch.arange(len(item.prompt_ids) - 1, len(item) - 1) - start + row * length
                for row, (item, start) in enumerate(zip(items, starts, strict=True))
            ]
        ).to(self.device)
        ids = torch.cat([torch.tensor(item.response_ids) for item in items]).to(self.device)
        return ResponseStates(hidden[predicting], ids)

    def _forward(
        self, rows: Sequence[IntArray], starts: Sequence[int], prefixes: Sequence[Prefix], kept: KeysValues | None
    ) -> Tensor:
        """Hidden states [rows * longest, hidden] of token ids that stand at positions `starts` and after."""
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True).to(self.device)
        length = ids.shape[1]
        positions = torch.tensor(starts, device=self.device)[:, None] + torch.arange(length, device=ids.device)
        # Padding may stand behind the last position that has an angle; what it is rotated by does not matter.
        positions = positions.flatten().clamp(max=len(self.angles) - 1)
        attention = CausalAttention(length, None if kept is None else copied_into(kept), prefixes)
        return self.backbone(ids.flatten(), self.angles.at(positions), attention)


def _before_each(prefix: Prefix, count: int) -> Prefix:
    """The one prefix of everything, before `count` sequences."""
    return Prefix(prefix.keys_values, prefix.rows.new_zeros(count), prefix.lengths)
