"""Sampling completions in slots: one that ends makes way for the next, and the others do not wait for it.

On CUDA the host reads which ones have ended a round of tokens late, so that the device never waits for it.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from distillkit.arrays import Array, IntArray, logprob_array, token_ids
from distillkit.records import FinishReason, Rollout
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.decoder import Decoder, Progress
from distillkit_builtin.local.fast.kv_slots import power_of_two
from distillkit_builtin.local.fast.pace import ELSEWHERE, ON_CUDA, Pace
from distillkit_builtin.local.sampling.known_ids import KnownIds

TOKENS_PER_STOP_CHARACTER = 8
"""Tokens that a character of a stop string may be spread over: four bytes, and what decodes to nothing."""
ROUND = 128
"""Slots are a multiple of this many tokens long, so that a slightly longer prompt does not need new ones."""


@dataclass(slots=True)
class SlotGenerator:
    """Samples by a fast backbone. Slots and graphs stay for the next call, and across updates of weights in place."""

    backbone: FastBackbone
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]
    """What ends every completion, besides its own `params.stop_ids`."""
    pace: Pace | None = None
    """How the host follows the device; None takes the pace that suits the device."""
    gives_up: int | None = None
    """Bytes of slots from which on they and their graphs are freed at the end of a call; None: they always stay."""
    known: KnownIds = field(init=False)
    """Which ids are sampled."""
    _decoder: Decoder | None = None

    def __post_init__(self) -> None:
        """Sample what the tokenizer has."""
        self.known = KnownIds.of(self.tokenizer)

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[SampleRequest], size: int, version: int, emit: Callable[[Rollout], None]
    ) -> None:
        """Sample the requests in at most `size` slots, and `emit` each completion when it ends.

        As `Generator.generate` says; `requests` have one set of sampling parameters and want the same.
        """
        try:
            decoder = self._decoder_for(requests, min(size, len(requests)))
            decoder.begin(requests[0].wanted)
            pace = self.pace or (ON_CUDA if decoder.eos.is_cuda else ELSEWHERE)
            _Generation(self, decoder, size, pace, version, emit, requests[0].params, deque(requests)).run()
            if self.gives_up is not None and decoder.slots.size_bytes >= self.gives_up:
                self.free_caches()
        except torch.OutOfMemoryError:
            self.free_caches()
            raise

    def free_caches(self) -> bool:
        """Free slots and graphs, which are made again when they are needed; returns whether there were any."""
        had, self._decoder = self._decoder is not None, None
        return had

    def _decoder_for(self, requests: Sequence[SampleRequest], size: int) -> Decoder:
        longest = max(len(request.prompt_ids) + request.params.max_tokens for request in requests)
        capacity = max(request.params.max_tokens for request in requests)
        ends = tuple(sorted(self.eos_ids.union(requests[0].params.stop_ids)))
        if self._decoder is None or not self._decoder.fits(size, longest, capacity, ends):
            self._decoder = None  # frees its memory first
            length = -(-longest // ROUND) * ROUND
            self._decoder = Decoder.allocate(self.backbone, ends, size, length, capacity, known=self.known)
        return self._decoder


@dataclass(slots=True, eq=False)
class _Active:
    """A completion that is being sampled in a slot."""

    request: SampleRequest
    sampled: int = 1
    """Tokens of the completion when the host last read."""
    scheduled: int = 1
    """Tokens of the completion once the rounds in hand are done, unless it ends before."""

    @property
    def may_grow(self) -> bool:
        """Whether the completion is still shorter than its limit once the rounds in hand are done."""
        return self.scheduled < self.request.params.max_tokens

    @property
    def length(self) -> int:
        """Tokens of prompt and completion once the rounds in hand are done."""
        return len(self.request.prompt_ids) + min(self.scheduled, self.request.params.max_tokens)


@dataclass(slots=True)
class _Generation:
    """Requests of one call, with one set of sampling parameters, which want the same."""

    generator: SlotGenerator
    decoder: Decoder
    size: int
    pace: Pace
    version: int
    emit: Callable[[Rollout], None]
    params: SamplingParams
    waiting: deque[SampleRequest]
    active: list[_Active | None] = field(default_factory=list)
    """The completion in each slot; None in a free one."""
    rounds: deque[tuple[list[_Active | None], Progress]] = field(default_factory=deque)
    """Those that the host has not read, each with the completions that were in the slots."""

    def run(self) -> None:
        """Sample every request, and emit each completion when it ends."""
        self.decoder.state.ended.fill_(True)  # a call that was cancelled leaves completions behind
        ended: list[Rollout] = []
        while True:
            self.generator.backbone.causal_lm.device.raise_if_cancelled()
            self._admit()
            begun = self._begin_round()
            for rollout in ended:  # while the device computes
                self.emit(rollout)
            if not self.rounds:
                return
            late = len(self.rounds) > self.pace.ahead or not begun
            ended = self._collect(*self.rounds.popleft()) if late else []

    def _begin_round(self) -> bool:
        """Let the device sample a round, if any completion may need it."""
        active = [completion for completion in self.active if completion is not None]
        # A completion of a single token never grows, and must be read all the same.
        if not active or (self.rounds and not any(each.may_grow for each in active)) or not self._compact():
            return False
        count = len(self.active)
        if self.decoder.eos.is_cuda:
            count = power_of_two(count, self.decoder.slots.count)
        for completion in active:
            completion.scheduled += self.pace.steps
        self.decoder.advance(count, self._longest(), self.pace.steps, self.params)
        self.rounds.append((list(self.active), self.decoder.progress(len(self.active))))
        return True

    def _longest(self) -> int:
        return max(completion.length for completion in self.active if completion is not None)

    def _admit(self) -> None:
        free = [slot for slot, completion in enumerate(self.active) if completion is None]
        free += range(len(self.active), min(self.size, self.decoder.slots.count))
        slots = free[: len(self.waiting)]
        if not slots:
            return
        requests = [self.waiting.popleft() for _ in slots]
        self.active += [None] * (max(slots) + 1 - len(self.active))
        for slot, request in zip(slots, requests, strict=True):
            self.active[slot] = _Active(request)
        self.decoder.admit(slots, requests)

    def _compact(self) -> bool:
        """Once no request waits, move the last completions into free slots, where that makes steps cheaper.

        False if that has to wait for rounds in hand: their progress is of the slots as they were.
        """
        while self.active and self.active[-1] is None:
            del self.active[-1]
        count = sum(completion is not None for completion in self.active)
        cuda = self.decoder.eos.is_cuda
        if self.waiting or count == len(self.active) or (cuda and 2 * count > len(self.active)):
            return True
        if self.rounds:
            return False
        targets = [slot for slot, completion in enumerate(self.active[:count]) if completion is None]
        sources = [slot for slot, completion in enumerate(self.active) if completion is not None and slot >= count]
        self.decoder.move(sources, targets, self._longest())
        for source, target in zip(sources, targets, strict=True):
            self.active[target] = self.active[source]
        del self.active[count:]
        return True

    def _collect(self, before: Sequence[_Active | None], progress: Progress) -> list[Rollout]:
        """Those that have ended in a round that began with `before` in the slots; their slots are free then."""
        ended, sampled = progress.wait()
        # Where a completion ended in the round before, another may be in its slot by now.
        same = {
            slot: each for slot, each in enumerate(before[: len(self.active)]) if each and self.active[slot] is each
        }
        cut = self._cut_at_stop_strings(same, sampled, progress)
        for slot, completion in same.items():
            completion.sampled = sampled[slot]
        done = [slot for slot in same if ended[slot] or slot in cut]
        if not done:
            return []
        ids, logprobs = self.decoder.read(done, progress)
        tables = self.decoder.read_tables(done, max(sampled[slot] for slot in done), progress)
        rollouts = []
        for row, slot in enumerate(done):
            self.active[slot] = None
            length = cut.get(slot, sampled[slot])
            arrays = {name: values[row, :length] for name, values in tables.items()}
            request, stopped = same[slot].request, slot in cut
            rollouts.append(self._rollout(request, ids[row, :length], logprobs[row, :length], arrays, stopped=stopped))
        return rollouts

    def _cut_at_stop_strings(
        self, active: Mapping[int, _Active], sampled: Sequence[int], progress: Progress
    ) -> dict[int, int]:
        """Lengths, by slot, of completions that hold a stop string by now; they end with the token that made it."""
        stops = self.params.stop
        if not stops or not active:
            return {}
        ids = self.decoder.read_ids(list(active), progress)
        reach = TOKENS_PER_STOP_CHARACTER * (max(map(len, stops)) + 1)
        cut: dict[int, int] = {}
        for row, (slot, completion) in enumerate(active.items()):
            new = ids[row, max(0, completion.sampled - reach) : sampled[slot]]  # not all of it each time
            if self._holds(new, stops):
                lengths = range(completion.sampled, sampled[slot] + 1)
                found = next((n for n in lengths if self._holds(ids[row, :n], stops)), None)
                cut |= {} if found is None else {slot: found}
        if cut:
            self.decoder.state.ended[list(cut)] = True
        return cut

    def _holds(self, ids: IntArray, stops: Sequence[str]) -> bool:
        text = self.generator.tokenizer.decode(ids.tolist())
        return any(stop in text for stop in stops)

    def _rollout(
        self, request: SampleRequest, ids: IntArray, logprobs: np.ndarray, arrays: Mapping[str, Array], *, stopped: bool
    ) -> Rollout:
        reason: FinishReason = "stop" if stopped or int(ids[-1]) in self.decoder.eos_ids else "length"
        return Rollout(
            request=request,
            policy_version=self.version,
            token_ids=token_ids(ids),
            logprobs=logprob_array(logprobs),
            finish_reason=reason,
            text=self.generator.tokenizer.decode(ids.tolist()),
            arrays=arrays,
        )
