"""What is drawn in every slot so far, on the device: a step reads and changes it without asking the host."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillkit.types import SampleRequest


@dataclass(frozen=True, slots=True)
class State:
    """All [slots] unless said."""

    token: Tensor
    """The last one drawn, which the model has not read yet."""
    position: Tensor
    """Where it will stand."""
    made: Tensor
    """How many were drawn."""
    limit: Tensor
    """How many may be drawn."""
    ended: Tensor
    """Whether nothing more is drawn here; a slot that holds no completion has ended."""
    uniforms: Tensor
    """[slots, most] float32, one a token."""
    ids: Tensor
    """[slots, most]."""
    logprobs: Tensor
    """[slots, most] float32, at temperature 1."""

    @classmethod
    def empty(cls, slots: int, most: int, device: torch.device) -> "State":
        """No completion anywhere; `most` tokens have room in each slot."""

        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        ended = torch.ones(slots, dtype=torch.bool, device=device)
        uniforms, logprobs = (torch.zeros(slots, most, device=device) for _ in range(2))
        one = [whole(slots) for _ in range(4)]
        return cls(one[0], one[1], one[2], one[3], ended, uniforms, whole(slots, most), logprobs)

    @property
    def most(self) -> int:
        """Tokens that have room in a slot."""
        return self.ids.shape[1]

    def begin(self, places: Tensor, requests: Sequence[SampleRequest]) -> None:
        """Requests whose prompts were just read start in slots `places`."""
        numbers = np.zeros((len(requests), self.most), dtype=np.float32)
        for row, request in enumerate(requests):
            count = request.params.max_tokens
            numbers[row, :count] = np.random.Generator(np.random.Philox(key=request.seed)).random(
                count, dtype=np.float32
            )
        device = self.token.device
        self.uniforms[places] = torch.from_numpy(numbers).to(device)
        self.position[places] = torch.tensor([len(request.prompt_ids) - 1 for request in requests], device=device)
        self.limit[places] = torch.tensor([request.params.max_tokens for request in requests], device=device)
        self.made[places] = 0
        self.ended[places] = False

    def next_uniforms(self, places: Tensor) -> Tensor:
        """[n] of the tokens to be drawn next."""
        return self.uniforms[places, self.made[places].clamp(max=self.most - 1)]

    def note(self, places: Tensor, token: Tensor, logprob: Tensor, eos: Tensor) -> None:
        """`token` [n] and `logprob` [n] were drawn in slots `places` [n]; where one has ended, nothing changes."""
        going = ~self.ended[places]
        made = self.made[places]
        column = made.clamp(max=self.most - 1)
        token = torch.where(going, token, self.token[places])
        self.ids[places, column] = torch.where(going, token, self.ids[places, column])
        self.logprobs[places, column] = torch.where(going, logprob, self.logprobs[places, column])
        self.token[places] = token
        self.position[places] += going
        self.made[places] = made + going
        last = (token[:, None] == eos).any(1) | (made + 1 >= self.limit[places])
        self.ended[places] |= going & last

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Slots `targets` take over from `sources`, which are empty then."""
        for value in (
            self.token, self.position, self.made, self.limit, self.ended, self.uniforms, self.ids, self.logprobs,
        ):  # fmt: skip
            value[targets] = value[sources]
        self.ended[sources] = True
