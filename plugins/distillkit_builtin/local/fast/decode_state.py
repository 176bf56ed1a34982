"""What is sampled in every slot so far, on the device: a step reads and changes it without waiting for the host."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillkit.types import SampleRequest
from distillkit_builtin.local.model.fused_ops import fused


@dataclass(frozen=True, slots=True)
class DecodeState:
    """All [slots] unless another shape is given."""

    token: Tensor
    """The last one sampled, which the model has not read yet."""
    position: Tensor
    """The position that `token` will have."""
    sampled: Tensor
    """How many tokens were sampled."""
    limit: Tensor
    """How many may be sampled."""
    ended: Tensor
    """Whether the completion has ended; so it has in a slot that holds none."""
    uniforms: Tensor
    """[slots, capacity] float32, one a token."""
    ids: Tensor
    """[slots, capacity]."""
    logprobs: Tensor
    """[slots, capacity] float32, at temperature 1."""

    @classmethod
    def empty(cls, slots: int, capacity: int, device: torch.device) -> "DecodeState":
        """No completion in any slot; each can hold `capacity` tokens."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        ended = torch.ones(slots, dtype=torch.bool, device=device)
        uniforms, logprobs = (torch.zeros(slots, capacity, device=device) for _ in range(2))
        counts = [zeros(slots) for _ in range(4)]
        return cls(counts[0], counts[1], counts[2], counts[3], ended, uniforms, zeros(slots, capacity), logprobs)

    @property
    def capacity(self) -> int:
        """The longest completion, in tokens, that a slot can hold."""
        return self.ids.shape[1]

    def start(self, slots: Tensor, requests: Sequence[SampleRequest]) -> None:
        """Begin the completions of requests whose prompts were just computed, in `slots`."""
        numbers = np.zeros((len(requests), self.capacity), dtype=np.float32)
        for row, request in enumerate(requests):
            count = request.params.max_tokens
            numbers[row, :count] = np.random.Generator(np.random.Philox(key=request.seed)).random(
                count, dtype=np.float32
            )
        device = self.token.device
        self.uniforms[slots] = torch.from_numpy(numbers).to(device)
        self.position[slots] = torch.tensor([len(request.prompt_ids) - 1 for request in requests], device=device)
        self.limit[slots] = torch.tensor([request.params.max_tokens for request in requests], device=device)
        self.sampled[slots] = 0
        self.ended[slots] = False

    def next_uniforms(self, slots: Tensor) -> Tensor:
        """[n] for the tokens to be sampled next."""
        return _next(slots, self.uniforms, self.sampled)

    def append(self, slots: Tensor, token: Tensor, logprob: Tensor, eos: Tensor) -> None:
        """Add `token` [n] and `logprob` [n] in `slots` [n]; where a completion has ended, nothing changes."""
        counts = self.sampled, self.limit, self.ended
        _append(slots, token, logprob, eos, self.token, self.position, *counts, self.ids, self.logprobs)

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Move completions from slots `sources`, which are empty then, to `targets`."""
        for value in (
            self.token, self.position, self.sampled, self.limit, self.ended, self.uniforms, self.ids, self.logprobs,
        ):  # fmt: skip
            value[targets] = value[sources]
        self.ended[sources] = True


@fused
def _next(slots: Tensor, uniforms: Tensor, sampled: Tensor) -> Tensor:
    return uniforms[slots, sampled[slots].clamp(max=uniforms.shape[1] - 1)]


@fused
def _append(
    slots: Tensor, token: Tensor, logprob: Tensor, eos: Tensor, last: Tensor, position: Tensor, sampled: Tensor,
    limit: Tensor, ended: Tensor, ids: Tensor, logprobs: Tensor,
) -> None:  # fmt: skip
    """Change the state in place: some thirty small operations, which are a few kernels where they are compiled."""
    active, count = ~ended[slots], sampled[slots]
    column = count.clamp(max=ids.shape[1] - 1)
    token = torch.where(active, token, last[slots])
    ids[slots, column] = torch.where(active, token, ids[slots, column])
    logprobs[slots, column] = torch.where(active, logprob, logprobs[slots, column])
    last[slots] = token
    position[slots] += active
    sampled[slots] = count + active
    ends = (token[:, None] == eos).any(1) | (count + 1 >= limit[slots])
    ended[slots] |= active & ends
