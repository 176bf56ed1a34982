"""Sequences end to end in one row: nothing is padded, and compiled layers get inputs of one form alone.

Attention stays inside each sequence (`packed_attention.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import IntArray
from distillkit_builtin.local.batches.shared_prompts import DistinctPrompts
from distillkit_builtin.local.model.causal_lm import PromptAndResponse

ROUND = 128
"""On CUDA a row is filled up to a multiple of this many tokens, which matrix products like."""
MIN_LONGEST = 2048
"""The length that attention on CUDA is given at least: for shorter ones it has next to nothing more to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Tokens that stand next to each other in the row and attend to the same: a prompt, a response, or both."""

    ids: IntArray
    prefix: "Segment | None" = None
    """What they attend to besides themselves, which stands before them: the prompt of several responses."""

    @property
    def attended_length(self) -> int:
        """Tokens that the last one attends to, itself too."""
        return len(self.ids) + (0 if self.prefix is None else len(self.prefix.ids))


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Sequences of tokens in one row [1, T]."""

    ids: Tensor
    positions: Tensor
    """[1, T]: of each token in its own sequence."""
    ends: Tensor
    """[n + 1] int32: where each of the n segments begins, and where the last one ends."""
    longest: int
    """No sequence has more tokens. A power of two, and not small: layers are compiled again for each value."""
    keys: Tensor | None
    """[K] indices of the tokens that the segments attend to, one segment after another; None: each to itself alone."""
    key_ends: Tensor
    """[n + 1] int32: where what each segment attends to begins in `keys`, and where that of the last one ends."""
    predicting: Tensor
    """[R] indices of the tokens that predict a response's token, the responses end to end."""
    response_ids: Tensor
    """[R] the responses' ids."""

    @classmethod
    def of(cls, items: Sequence[PromptAndResponse], device: torch.device) -> "PackedRow":
        """Prompts with their responses but for the last token, which predicts nothing that is requested.

        On CUDA each has its own prompt, and zeros fill the row up; elsewhere one with several responses stands once.
        """
        cuda = device.type == "cuda"
        segments, predicting = (_separate if cuda else _sharing_prompts)(items)
        filled = -sum(len(segment.ids) for segment in segments) % ROUND if cuda else 0
        if filled:
            segments.append(Segment(np.zeros(filled, dtype=np.int64)))
        ends = _ends([len(segment.ids) for segment in segments])
        starts = dict(zip(segments, ends[:-1].tolist(), strict=True))

        def on_device(array: IntArray) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            ids=on_device(np.concatenate([segment.ids for segment in segments]).astype(np.int64))[None],
            positions=on_device(
                np.concatenate([np.arange(s.attended_length - len(s.ids), s.attended_length) for s in segments])
            )[None],
            ends=on_device(ends.astype(np.int32)),
            longest=max(MIN_LONGEST, 1 << (max(segment.attended_length for segment in segments) - 1).bit_length()),
            keys=on_device(_attended_indices(segments, starts))
            if any(segment.prefix for segment in segments)
            else None,
            key_ends=on_device(_ends([segment.attended_length for segment in segments]).astype(np.int32)),
            predicting=on_device(np.concatenate([starts[segment] + offsets for segment, offsets in predicting])),
            response_ids=on_device(np.concatenate([item.response_ids for item in items]).astype(np.int64)),
        )


Predicting = list[tuple[Segment, IntArray]]
"""Segments, and the offsets inside them that predict a token; the same segment may come several times."""


def _separate(items: Sequence[PromptAndResponse]) -> tuple[list[Segment], Predicting]:
    """A segment for each item, with a prompt of its own."""
    segments = [Segment(np.concatenate([item.prompt_ids, item.response_ids[:-1]])) for item in items]
    pairs = zip(segments, items, strict=True)
    return segments, [(segment, np.arange(len(item.prompt_ids) - 1, len(item) - 1)) for segment, item in pairs]


def _sharing_prompts(items: Sequence[PromptAndResponse]) -> tuple[list[Segment], Predicting]:
    """Each different prompt, then the responses behind them, the short ones first: equal lengths stand together."""
    distinct = DistinctPrompts.of(item.prompt_ids for item in items)
    prompts = [Segment(ids) for ids in distinct.prompts]
    responses = [
        Segment(item.response_ids[:-1], prompts[row]) for item, row in zip(items, distinct.row_of, strict=True)
    ]
    predicting: Predicting = []
    for response, row in zip(responses, distinct.row_of, strict=True):
        last = np.array([len(prompts[row].ids) - 1])
        predicting += [(prompts[row], last), (response, np.arange(len(response.ids)))]
    segments = sorted(prompts, key=lambda segment: segment.attended_length)
    segments += sorted((s for s in responses if len(s.ids)), key=lambda s: (len(s.ids), s.attended_length))
    return segments, [(segment, offsets) for segment, offsets in predicting if len(offsets)]


def _ends(lengths: Sequence[int]) -> IntArray:
    ends: IntArray = np.concatenate([[0], np.cumsum(lengths)])
    return ends


def _attended_indices(segments: Sequence[Segment], starts: Mapping[Segment, int]) -> IntArray:
    """[K] indices into the row of what each segment attends to; `starts` is where each segment begins."""
    parts = [part for segment in segments for part in (segment.prefix, segment) if part is not None]
    keys: IntArray = np.concatenate([np.arange(starts[part], starts[part] + len(part.ids)) for part in parts])
    return keys
