"""A completion that is being sampled, and tokens on their way from the device to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import Array, logprob_array, token_ids
from distillkit.records import FinishReason, Rollout
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer


@dataclass(slots=True)
class Draft:
    """A completion as far as it is sampled."""

    request: SampleRequest
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]
    """What ends it, besides its own `params.stop_ids`."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)
    """[max_tokens, ...] of what the request wants besides, as far as tokens are sampled."""
    finish_reason: FinishReason | None = None

    def append(self, index: int, logprob: float, wanted: Mapping[str, Array]) -> None:
        """Add a token, and what is wanted [...] of its distribution; it may be the last."""
        for name, value in wanted.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((self.request.params.max_tokens, *value.shape), value.dtype)
            self.arrays[name][len(self.ids)] = value
        self.ids.append(index)
        self.logprobs.append(logprob)
        self.finish_reason = self._finish_reason()

    def _finish_reason(self) -> FinishReason | None:
        params = self.request.params
        if self.ids[-1] in self.eos_ids or self.ids[-1] in params.stop_ids:
            return "stop"
        if params.stop and any(stop in self.tokenizer.decode(self.ids) for stop in params.stop):
            return "stop"
        return "length" if len(self.ids) == params.max_tokens else None

    def rollout(self, version: int) -> Rollout:
        """What was sampled; policy `version` made it."""
        return Rollout(
            request=self.request,
            policy_version=version,
            token_ids=token_ids(self.ids),
            logprobs=logprob_array(self.logprobs),
            finish_reason=self.finish_reason or "length",
            text=self.tokenizer.decode(self.ids),
            arrays={name: values[: len(self.ids)] for name, values in self.arrays.items()},
        )


class SampledTokens:
    """One token a row, which the host reads while the device may go on."""

    def __init__(self, chosen: Tensor, logprobs: Tensor, tables: Mapping[str, Tensor]) -> None:
        """`chosen` [n], their `logprobs` [n], and what is wanted of their distributions, [n, ...] each."""
        self.chosen = chosen
        self._copies = [_to_host(tensor) for tensor in (chosen, logprobs, *tables.values())]
        self._names = tuple(tables)
        self._ready = torch.cuda.Event() if chosen.is_cuda else None
        if self._ready is not None:
            self._ready.record()

    def append_to(self, drafts: Sequence[Draft]) -> None:
        """Wait until the device has them, and add each to its draft."""
        if self._ready is not None:
            self._ready.synchronize()
        chosen, logprobs, *tables = self._copies
        wanted = dict(zip(self._names, (table.numpy() for table in tables), strict=True))
        for row, (draft, index, logprob) in enumerate(zip(drafts, chosen.tolist(), logprobs.tolist(), strict=True)):
            draft.append(index, logprob, {name: values[row] for name, values in wanted.items()})


def _to_host(tensor: Tensor) -> Tensor:
    """A copy in host memory; of a CUDA tensor one that is there only once the device has come so far."""
    if not tensor.is_cuda:
        return tensor.cpu()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    return copy
