"""Drawing completions in slots: one that ends makes room for the next, and what goes on does not wait for it.

On CUDA the host looks at what has ended a round of tokens late, so that the device never waits for it.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from distillkit.arrays import IntArray, logprob_array, token_ids
from distillkit.records import FinishReason, Rollout
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.decoder import Decoder, Look

ROOM_FOR_A_STOP = 8
"""Tokens that a character of a stop string may be spread over: four bytes, and what decodes to nothing."""
ROUND = 128
"""Slots are a multiple of this many tokens long, so that a slightly longer prompt does not need new ones."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How the host follows the device."""

    steps: int
    """Tokens of a round: the host looks at what has ended once a round."""
    ahead: int
    """Rounds that are under way while the host reads an earlier one."""


ON_CUDA, ELSEWHERE = Pace(4, 1), Pace(1, 0)


@dataclass(slots=True)
class SlotGenerator:
    """Draws from one backbone. Slots and graphs stay for the next call, and across updates of the weights in place."""

    backbone: FastBackbone
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]
    pace: Pace | None = None
    """None: what the device suggests."""
    _decoder: Decoder | None = None

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[SampleRequest], size: int, version: int, emit: Callable[[Rollout], None]
    ) -> None:
        """See `Drawer`."""
        try:
            decoder = self._with_room(requests, min(size, len(requests)))
            pace = self.pace or (ON_CUDA if decoder.eos.is_cuda else ELSEWHERE)
            _Drawing(self, decoder, size, pace, version, emit, requests[0].params, deque(requests)).all()
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
            self._decoder = Decoder.make(self.backbone, sorted(self.eos_ids), size, length, most)
        return self._decoder


@dataclass(slots=True, eq=False)
class _Going:
    """A completion in its slot."""

    request: SampleRequest
    made: int = 1
    """Its tokens when the host last looked."""
    asked: int = 1
    """Its tokens once the rounds under way are done, unless it ends before."""

    @property
    def may_go_on(self) -> bool:
        """Whether it is not as long as it may be by then."""
        return self.asked < self.request.params.max_tokens

    @property
    def length(self) -> int:
        """Prompt and completion by then."""
        return len(self.request.prompt_ids) + min(self.asked, self.request.params.max_tokens)


@dataclass(slots=True)
class _Drawing:
    """Requests of one call that are drawn in the same way."""

    sampler: SlotGenerator
    decoder: Decoder
    size: int
    pace: Pace
    version: int
    emit: Callable[[Rollout], None]
    params: SamplingParams
    waiting: deque[SampleRequest]
    active: list[_Going | None] = field(default_factory=list)
    """By slot."""
    under_way: deque[tuple[list[_Going | None], Look]] = field(default_factory=deque)
    """Rounds that the host has not read, each with what was in the slots."""

    def all(self) -> None:
        """Draw everything."""
        self.decoder.state.ended.fill_(True)  # a call that was given up leaves completions behind
        ended: list[Rollout] = []
        while True:
            self.sampler.backbone.causal_lm.device.raise_if_cancelled()
            self._admit()
            begun = self._begin_round()
            for rollout in ended:  # while the device computes
                self.emit(rollout)
            if not self.under_way:
                return
            late = len(self.under_way) > self.pace.ahead or not begun
            ended = self._harvest(*self.under_way.popleft()) if late else []

    def _begin_round(self) -> bool:
        """Let the device draw on, if any completion may need it."""
        going = [one for one in self.active if one is not None]
        # One of a single token never goes on, and must be looked at all the same.
        if not going or (self.under_way and not any(one.may_go_on for one in going)) or not self._close_ranks():
            return False
        count = len(self.active)
        if self.decoder.eos.is_cuda:
            count = _power_of_two(count, self.decoder.slots.count)
        for one in going:
            one.asked += self.pace.steps
        self.decoder.advance(count, self._longest(), self.pace.steps, self.params)
        self.under_way.append((list(self.active), self.decoder.look(len(self.active))))
        return True

    def _longest(self) -> int:
        return max(one.length for one in self.active if one is not None)

    def _admit(self) -> None:
        free = [i for i, one in enumerate(self.active) if one is None]
        free += range(len(self.active), min(self.size, self.decoder.slots.count))
        places = free[: len(self.waiting)]
        if not places:
            return
        requests = [self.waiting.popleft() for _ in places]
        self.active += [None] * (max(places) + 1 - len(self.active))
        for place, request in zip(places, requests, strict=True):
            self.active[place] = _Going(request)
        self.decoder.admit(places, requests)

    def _close_ranks(self) -> bool:
        """Once nothing waits, move the last completions into free slots, where that makes steps cheaper.

        False if that has to wait for rounds under way: what they tell is of the slots as they were.
        """
        while self.active and self.active[-1] is None:
            del self.active[-1]
        count = sum(one is not None for one in self.active)
        cuda = self.decoder.eos.is_cuda
        if self.waiting or count == len(self.active) or (cuda and 2 * count > len(self.active)):
            return True
        if self.under_way:
            return False
        targets = [i for i, one in enumerate(self.active[:count]) if one is None]
        sources = [i for i, one in enumerate(self.active) if one is not None and i >= count]
        self.decoder.move(sources, targets, self._longest())
        for source, target in zip(sources, targets, strict=True):
            self.active[target] = self.active[source]
        del self.active[count:]
        return True

    def _harvest(self, before: Sequence[_Going | None], look: Look) -> list[Rollout]:
        """What has ended in a round that began with `before` in the slots; its slots are free."""
        ended, made = look.wait()
        # Where a completion ended in the round before, another may be in its slot by now.
        same = {i: one for i, one in enumerate(before[: len(self.active)]) if one and self.active[i] is one}
        cut = self._cut_at_stop_strings(same, made, look)
        for i, one in same.items():
            one.made = made[i]
        done = [i for i in same if ended[i] or i in cut]
        if not done:
            return []
        ids, logprobs = self.decoder.read(done, look)
        rollouts = []
        for row, i in enumerate(done):
            self.active[i] = None
            length = cut.get(i, made[i])
            request = same[i].request
            rollouts.append(self._rollout(request, ids[row, :length], logprobs[row, :length], stopped=i in cut))
        return rollouts

    def _cut_at_stop_strings(self, going: Mapping[int, _Going], made: Sequence[int], look: Look) -> dict[int, int]:
        """How long completions are that hold a stop string by now, by slot; they end with the token that made it."""
        stops = self.params.stop
        if not stops or not going:
            return {}
        ids = self.decoder.read_ids(list(going), look)
        reach = ROOM_FOR_A_STOP * max(map(len, stops)) + ROOM_FOR_A_STOP
        cut: dict[int, int] = {}
        for row, (i, one) in enumerate(going.items()):
            if self._holds(ids[row, max(0, one.made - reach) : made[i]], stops):  # what is new, not all of it each time
                lengths = range(one.made, made[i] + 1)
                found = next((n for n in lengths if self._holds(ids[row, :n], stops)), None)
                cut |= {} if found is None else {i: found}
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
