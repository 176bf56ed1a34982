"""Drawing completions in slots: one that ends makes room for the next, and what goes on does not wait for it."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from distillkit.types import FinishReason, IntArray, Rollout, SampleRequest, SamplingParams, logprob_array, token_ids
from distillkit_builtin.local.fast.decoder import Decoder
from distillkit_builtin.local.fast.trunk import FastTrunk
from distillkit_builtin.tokenizer import HFTokenizer

STEPS_ON_CUDA = 8
"""Tokens that are drawn before the host looks at what has ended."""
ROUND = 128
"""Slots are a multiple of this many tokens long, so that a slightly longer prompt does not need new ones."""


@dataclass(slots=True)
class SlotSampler:
    """Draws from one trunk. Slots and graphs stay for the next call, and across updates of the weights in place."""

    trunk: FastTrunk
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]
    _decoder: Decoder | None = None

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[SampleRequest], size: int, version: int, emit: Callable[[Rollout], None]
    ) -> None:
        """See `Drawer`."""
        try:
            decoder = self._with_room(requests, min(size, len(requests)))
            _Drawing(self, decoder, size, version, emit, requests[0].params, deque(requests)).all()
        except torch.OutOfMemoryError:
            self.release()
            raise

    def release(self) -> bool:
        """Give up slots and graphs, which are made again when they are needed; see `Drawer`."""
        had, self._decoder = self._decoder is not None, None
        return had

    def _with_room(self, requests: Sequence[SampleRequest], size: int) -> Decoder:
        longest = max(len(request.prompt_ids) + request.params.max_tokens for request in requests)
        most = max(request.params.max_tokens for request in requests)
        if self._decoder is None or not self._decoder.holds(size, longest, most):
            self._decoder = None  # frees its memory first
            length = -(-longest // ROUND) * ROUND
            self._decoder = Decoder.make(self.trunk, sorted(self.eos_ids), size, length, most)
        return self._decoder


@dataclass(slots=True)
class _Drawing:
    """Requests of one call that are drawn in the same way."""

    sampler: SlotSampler
    decoder: Decoder
    size: int
    version: int
    emit: Callable[[Rollout], None]
    params: SamplingParams
    waiting: deque[SampleRequest]
    active: list[SampleRequest | None] = field(default_factory=list)
    """By slot."""
    made: list[int] = field(default_factory=list)
    """Tokens by slot, when the host last looked."""

    def all(self) -> None:
        """Draw everything."""
        self.decoder.state.ended.fill_(True)  # a call that was given up leaves completions behind
        network = self.sampler.trunk.network
        cuda = self.decoder.eos.is_cuda
        steps = STEPS_ON_CUDA if cuda else 1
        ended: list[Rollout] = []
        while True:
            network.device.go_on()
            self._admit()
            self._close_ranks()
            if any(request is not None for request in self.active):
                count = _power_of_two(len(self.active), self.decoder.slots.count) if cuda else len(self.active)
                self.decoder.advance(count, self._longest() + steps, steps, self.params)
            for rollout in ended:  # while the device computes
                self.emit(rollout)
            if not any(request is not None for request in self.active):
                return
            ended = self._harvest()

    def _longest(self) -> int:
        pairs = zip(self.active, self.made, strict=True)
        return max(len(request.prompt_ids) + made for request, made in pairs if request is not None)

    def _admit(self) -> None:
        free = [i for i, request in enumerate(self.active) if request is None]
        free += range(len(self.active), min(self.size, self.decoder.slots.count))
        places = free[: len(self.waiting)]
        if not places:
            return
        requests = [self.waiting.popleft() for _ in places]
        missing = max(places) + 1 - len(self.active)
        self.active += [None] * missing
        self.made += [0] * missing
        for place, request in zip(places, requests, strict=True):
            self.active[place], self.made[place] = request, 1
        self.decoder.admit(places, requests)

    def _close_ranks(self) -> None:
        """Once nothing waits, move the last completions into free slots, where that makes steps cheaper."""
        while self.active and self.active[-1] is None:
            del self.active[-1], self.made[-1]
        count = sum(request is not None for request in self.active)
        cuda = self.decoder.eos.is_cuda
        if self.waiting or count == len(self.active) or (cuda and 2 * count > len(self.active)):
            return
        targets = [i for i, request in enumerate(self.active[:count]) if request is None]
        sources = [i for i, request in enumerate(self.active) if request is not None and i >= count]
        self.decoder.move(sources, targets, self._longest())
        for source, target in zip(sources, targets, strict=True):
            self.active[target], self.made[target] = self.active[source], self.made[source]
        del self.active[count:], self.made[count:]

    def _harvest(self) -> list[Rollout]:
        """What has ended since the last look; its slots are free."""
        before = list(self.made)
        state, count = self.decoder.state, len(self.active)
        ended, made = torch.stack([state.ended[:count].long(), state.made[:count]]).tolist()
        self.made = made
        cut = self._cut_at_stop_strings(before)
        done = [i for i, request in enumerate(self.active) if request is not None and (ended[i] or i in cut)]
        if not done:
            return []
        rows = torch.tensor(done, device=self.decoder.eos.device)
        ids, logprobs = state.ids[rows].cpu().numpy(), state.logprobs[rows].cpu().numpy()
        rollouts = []
        for row, i in enumerate(done):
            request = self.active[i]
            self.active[i] = None
            if request is not None:
                length = cut.get(i, made[i])
                rollouts.append(self._rollout(request, ids[row, :length], logprobs[row, :length], stopped=i in cut))
        return rollouts

    def _cut_at_stop_strings(self, before: Sequence[int]) -> dict[int, int]:
        """How long completions are that hold a stop string by now, by slot; they end with the token that made it."""
        stops = self.params.stop
        if not stops:
            return {}
        ids = self.decoder.state.ids[: len(self.active)].cpu().numpy()
        cut: dict[int, int] = {}
        for i, request in enumerate(self.active):
            if request is not None and self._holds(ids[i, : self.made[i]], stops):
                lengths = range(before[i], self.made[i] + 1)
                cut[i] = next(n for n in lengths if self._holds(ids[i, :n], stops))
        if cut:
            self.decoder.state.ended[list(cut)] = True
        return cut

    def _holds(self, ids: IntArray, stops: Sequence[str]) -> bool:
        text = self.sampler.tokenizer.decode(ids.tolist())
        return any(stop in text for stop in stops)

    def _rollout(self, request: SampleRequest, ids: IntArray, logprobs: np.ndarray, *, stopped: bool) -> Rollout:
        at_end: FinishReason = "stop" if stopped or int(ids[-1]) in self.sampler.eos_ids else "length"
        return Rollout(
            request=request,
            policy_version=self.version,
            token_ids=token_ids(ids),
            logprobs=logprob_array(logprobs),
            finish_reason=at_end,
            text=self.sampler.tokenizer.decode(ids.tolist()),
        )


def _power_of_two(count: int, most: int) -> int:
    """The least one that is not below `count`, or `most`: few sizes, so that few graphs are captured."""
    return min(most, 1 << (count - 1).bit_length())
