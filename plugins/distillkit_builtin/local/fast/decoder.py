"""Steps of all slots at once: each samples one more token of every completion; on CUDA a step is one graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distillkit.arrays import IntArray
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.local.batches.micro_batching import padded_micro_batches
from distillkit_builtin.local.batches.shared_prompts import DistinctPrompts
from distillkit_builtin.local.fast.attention import CausalAttention, DecodeAttention, Keep
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.decode_state import DecodeState
from distillkit_builtin.local.fast.kv_slots import KVSlots
from distillkit_builtin.local.fast.rotary import RotaryAngles
from distillkit_builtin.local.fast.sample_token import sample_token
from distillkit_builtin.local.fast.slot_tables import SlotTables, WantedKey, wanted_key
from distillkit_builtin.local.fast.truncation import truncated_logits
from distillkit_builtin.local.fixed.step_graph import CudaCapture, StepGraph
from distillkit_builtin.local.model.fused_ops import logprobs_of
from distillkit_builtin.local.sampling.known_ids import KnownIds, is_greedy
from distillkit_builtin.local.sampling.plain_generator import truncated_logprobs

PREFILL_TOKENS = 16_384
"""Tokens of prompts that are computed at once."""

SamplingKey = tuple[float, float, int]
"""What changes how a token is sampled: temperature, top-p, top-k."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far completions were at a time; the host knows it once the device has come so far."""

    counts: Tensor
    """[2, n] in host memory: whether each slot has ended, and how many tokens it has."""
    ready: torch.cuda.Event | None
    """None where `counts` holds the numbers at once."""

    def wait(self) -> list[list[int]]:
        """`counts` as lists, once the device has written it."""
        if self.ready is not None:
            self.ready.synchronize()
        lists: list[list[int]] = self.counts.tolist()
        return lists


@dataclass(slots=True)
class Decoder:
    """A backbone with its slots, its state, and the graphs that were captured over them."""

    backbone: FastBackbone
    eos_ids: tuple[int, ...]
    """What ends a completion; graphs were captured over these."""
    eos: Tensor
    """The same on the device."""
    slots: KVSlots
    state: DecodeState
    angles: RotaryAngles
    known: KnownIds
    capture: CudaCapture = field(default_factory=CudaCapture)
    graphs: dict[tuple[int, SamplingKey, WantedKey], StepGraph | None] = field(default_factory=dict)
    tables: dict[WantedKey, SlotTables] = field(default_factory=dict)
    """Of all that was wanted so far: they stay, since graphs were captured over them."""
    wanted: WantedKey = ()
    """What is wanted now."""
    copies: torch.cuda.Stream | None = None
    """The stream by which the host reads, without waiting for rounds that came after; None but on CUDA."""

    @classmethod
    def allocate(
        cls,
        backbone: FastBackbone,
        eos_ids: tuple[int, ...],
        slots: int,
        length: int,
        capacity: int,
        *,
        known: KnownIds,
    ) -> "Decoder":
        """With memory for `slots` completions of `capacity` tokens, each with its prompt of `length` tokens."""
        device = backbone.causal_lm.device.device
        shape = (slots, backbone.kv_heads, length, backbone.head_dim)
        kv_slots = KVSlots.empty(len(backbone.layers), shape, backbone.layers[0].qkv.weight)
        eos = torch.tensor(eos_ids, device=device, dtype=torch.long)
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        state = DecodeState.empty(slots, capacity, device)
        return cls(backbone, eos_ids, eos, kv_slots, state, backbone.rotary(length), known, copies=stream)

    def fits(self, slots: int, length: int, capacity: int, eos_ids: tuple[int, ...]) -> bool:
        """Whether there is memory for that, as in `allocate`, and completions end at these ids."""
        large = slots <= self.slots.count and length <= self.slots.length and capacity <= self.state.capacity
        return large and eos_ids == self.eos_ids

    def begin(self, wanted: Mapping[str, int]) -> None:
        """Keep from now on what is wanted of each sampled token's distribution, as `SampleRequest.wanted`."""
        self.wanted = wanted_key(wanted)
        if wanted and self.wanted not in self.tables:
            self.tables[self.wanted] = SlotTables.empty(wanted, self.state)

    def admit(self, slots: Sequence[int], requests: Sequence[SampleRequest]) -> None:
        """Compute the requests' prompts, each different one once, into `slots`, and sample their first tokens."""
        device = self.eos.device
        distinct = DistinctPrompts.of(request.prompt_ids for request in requests)
        for group in padded_micro_batches(list(map(len, distinct.prompts)), PREFILL_TOKENS):
            members = [i for prompt in group for i in distinct.members[prompt]]
            rows = [row for row, prompt in enumerate(group) for _ in distinct.members[prompt]]
            row_of = torch.tensor(rows, device=device)
            targets = torch.tensor([slots[i] for i in members], device=device)
            keep = partial(self.slots.fill, targets, row_of)
            logits = self._prefill([distinct.prompts[prompt] for prompt in group], keep)
            started = [requests[i] for i in members]
            self.state.start(targets, started)
            self._sample(targets, logits[row_of], started[0].params)

    def _prefill(self, prompts: Sequence[IntArray], keep: Keep) -> Tensor:
        """Logits [n, vocabulary] behind n prompts of about the same length; `keep` gets their keys and values."""
        device = self.eos.device
        ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(device)
        count, length = ids.shape
        angles = self.angles.at(torch.arange(length, device=device).repeat(count))
        hidden = self.backbone(ids.flatten(), angles, CausalAttention(length, keep))
        last = torch.tensor([row * length + len(prompt) - 1 for row, prompt in enumerate(prompts)], device=device)
        return self.backbone.causal_lm.head(hidden[last])

    def _sample(self, slots: Tensor, logits: Tensor, params: SamplingParams) -> None:
        uniforms = self.state.next_uniforms(slots)
        known = self.known.only(logits)
        if is_greedy(params):
            token = known.argmax(1)
            logprob = logprobs_of(logits, token)
        elif params.is_untouched and known is logits:
            token, logprob = sample_token(logits, uniforms)
        else:
            token, _ = sample_token(known if params.is_untouched else _truncated(known, params), uniforms)
            logprob = logprobs_of(logits, token)
        self.known.measure(logits, token, logprob, ~self.state.ended[slots])
        if self.wanted:
            logprobs = torch.log_softmax(logits, dim=1, dtype=torch.float32)
            self.tables[self.wanted].append(slots, self.state, self.known.only(logprobs))
        self.state.append(slots, token, logprob, self.eos)

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Put completions of at most `length` tokens into other slots."""
        device = self.eos.device
        come, go = torch.tensor(sources, device=device), torch.tensor(targets, device=device)
        self.slots.move(come, go, length)
        self.state.move(come, go)
        if self.wanted:
            self.tables[self.wanted].move(come, go)

    def advance(self, count: int, length: int, steps: int, params: SamplingParams) -> None:
        """Sample `steps` tokens in each of the first `count` slots; none of them is `length` tokens long after that."""
        for _ in range(steps):
            if self.eos.is_cuda:
                self._replay(count, params)
            else:
                self._step(count, length, params)

    def progress(self, count: int) -> Progress:
        """That of the first `count` slots after the rounds that were begun so far."""
        now = torch.stack([self.state.ended[:count].long(), self.state.sampled[:count]])
        if self.copies is None:
            return Progress(now, None)
        counts = torch.empty(now.shape, dtype=now.dtype, pin_memory=True)
        counts.copy_(now, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return Progress(counts, ready)

    def read(self, slots: Sequence[int], progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        """Ids and logprobs [n, capacity] of slots, as far as they were sampled at `progress`; there may be more."""
        return self._rows(self.state.ids, slots, progress), self._rows(self.state.logprobs, slots, progress)

    def read_ids(self, slots: Sequence[int], progress: Progress) -> np.ndarray:
        """Ids [n, capacity] of slots, as `read` gives them."""
        return self._rows(self.state.ids, slots, progress)

    def read_tables(self, slots: Sequence[int], length: int, progress: Progress) -> dict[str, np.ndarray]:
        """What is wanted besides of the first `length` tokens of slots, each [n, length, ...], as `read` gives it."""
        buffers = self.tables[self.wanted].buffers if self.wanted else {}
        return {name: self._rows(buffer[:, :length], slots, progress) for name, buffer in buffers.items()}

    def _rows(self, whole: Tensor, slots: Sequence[int], progress: Progress) -> np.ndarray:
        if progress.ready is not None and self.copies is not None:
            self.copies.wait_event(progress.ready)
        with torch.cuda.stream(self.copies):
            return whole[torch.tensor(slots, device=whole.device)].cpu().numpy()

    def _step(self, count: int, length: int, params: SamplingParams) -> None:
        slots = torch.arange(count, device=self.eos.device)
        positions = self.state.position[:count]
        attention = DecodeAttention(self.slots, positions, length)
        hidden = self.backbone(self.state.token[:count], self.angles.at(positions), attention)
        self._sample(slots, self.backbone.causal_lm.head(hidden), params)

    def _replay(self, count: int, params: SamplingParams) -> None:
        """The first step of a kind runs as it is, which compiles what must be; the second is captured."""
        key = (count, (params.temperature, params.top_p, params.top_k), self.wanted)
        if key not in self.graphs:
            self.graphs[key] = None
            self._step(count, self.slots.length, params)
            return
        graph = self.graphs[key]
        if graph is None:
            graph = self.graphs[key] = self.capture(partial(self._step, count, self.slots.length, params))
        graph.replay()


def _truncated(logits: Tensor, params: SamplingParams) -> Tensor:
    """What is sampled from, in the way that suits the device."""
    return truncated_logits(logits, params) if logits.is_cuda else truncated_logprobs(logits.float(), params)
