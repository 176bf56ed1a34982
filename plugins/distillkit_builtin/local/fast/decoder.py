"""Steps of all slots at once: each draws one more token of every completion; on CUDA a step is one graph."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distillkit.arrays import IntArray
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.local.causal_lm import micro_batches
from distillkit_builtin.local.fast.attention import Causal, OneToken
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.decode_state import State
from distillkit_builtin.local.fast.fused_ops import logprobs_of
from distillkit_builtin.local.fast.kv_slots import Slots
from distillkit_builtin.local.fast.sample_token import draw
from distillkit_builtin.local.fast.truncation import truncated
from distillkit_builtin.local.plain_generator import reshaped

READ_AT_ONCE = 16_384
"""Tokens of prompts."""

Law = tuple[float, float, int]
"""What changes how a token is drawn."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the host will know of a round once the device has come so far."""

    told: Tensor
    """[2, n] in host memory: whether each slot has ended, and how many tokens it has."""
    ready: torch.cuda.Event | None
    """None where it is there at once."""

    def wait(self) -> list[list[int]]:
        """`told`, once it is there."""
        if self.ready is not None:
            self.ready.synchronize()
        lists: list[list[int]] = self.told.tolist()
        return lists


@dataclass(slots=True)
class Decoder:
    """One backbone with its slots, its state, and the graphs that were captured over them."""

    backbone: FastBackbone
    eos: Tensor
    slots: Slots
    state: State
    cos: Tensor
    sin: Tensor
    graphs: dict[tuple[int, Law], torch.cuda.CUDAGraph | None] = field(default_factory=dict)
    reading: torch.cuda.Stream | None = None
    """What the host reads comes by this stream, and does not wait for rounds that came after; None but on CUDA."""

    @classmethod
    def make(cls, backbone: FastBackbone, eos_ids: Sequence[int], slots: int, length: int, most: int) -> "Decoder":
        """Room for `slots` completions of `most` tokens, each with its prompt of `length` tokens."""
        device = backbone.causal_lm.device.device
        shape = (slots, backbone.kv_heads, length, backbone.head_dim)
        rooms = Slots.empty(len(backbone.layers), shape, backbone.layers[0].qkv)
        eos = torch.tensor(eos_ids, device=device, dtype=torch.long)
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        return cls(backbone, eos, rooms, State.empty(slots, most, device), *backbone.rotary(length), reading=stream)

    def holds(self, slots: int, length: int, most: int) -> bool:
        """Whether there is room."""
        return slots <= self.slots.count and length <= self.slots.length and most <= self.state.most

    def admit(self, places: Sequence[int], requests: Sequence[SampleRequest]) -> None:
        """Read the requests' prompts, each different one once, into slots `places`, and draw their first tokens."""
        device = self.eos.device
        different: dict[bytes, list[int]] = {}
        for i, request in enumerate(requests):
            different.setdefault(request.prompt_ids.tobytes(), []).append(i)
        owners = list(different.values())
        prompts = [requests[members[0]].prompt_ids for members in owners]
        for group in micro_batches(list(map(len, prompts)), READ_AT_ONCE):
            members = [i for g in group for i in owners[g]]
            rows = torch.tensor([row for row, g in enumerate(group) for _ in owners[g]], device=device)
            where = torch.tensor([places[i] for i in members], device=device)
            logits, kept = self._read([prompts[g] for g in group])
            self.slots.fill(where, rows, kept)
            wanted = [requests[i] for i in members]
            self.state.begin(where, wanted)
            self._choose(where, logits[rows], wanted[0].params)

    def _read(self, prompts: Sequence[IntArray]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits [n, vocabulary] behind n prompts of about the same length, and their keys and values."""
        device = self.eos.device
        ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(device)
        count, length = ids.shape
        kept: list[tuple[Tensor, Tensor]] = []
        cos, sin = self.cos[:length].repeat(count, 1), self.sin[:length].repeat(count, 1)
        hidden = self.backbone(ids.flatten(), cos, sin, Causal(length, self.backbone.scale, kept))
        last = torch.tensor([row * length + len(prompt) - 1 for row, prompt in enumerate(prompts)], device=device)
        return self.backbone.causal_lm.head(hidden[last]), kept

    def _choose(self, places: Tensor, logits: Tensor, params: SamplingParams) -> None:
        uniforms = self.state.next_uniforms(places)
        if params.temperature == 0:
            token = logits.argmax(1)
            logprob = logprobs_of(logits, token)
        elif params.is_untouched:
            token, logprob = draw(logits, uniforms)
        else:
            law = truncated(logits, params) if logits.is_cuda else reshaped(logits.float(), params)
            token, _ = draw(law, uniforms)
            logprob = logprobs_of(logits, token)
        self.state.note(places, token, logprob, self.eos)

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Put completions of at most `length` tokens into other slots."""
        device = self.eos.device
        come, go = torch.tensor(sources, device=device), torch.tensor(targets, device=device)
        self.slots.move(come, go, length)
        self.state.move(come, go)

    def advance(self, count: int, length: int, steps: int, params: SamplingParams) -> None:
        """Draw `steps` tokens in each of the first `count` slots; none of them is `length` tokens long after that."""
        for _ in range(steps):
            if self.eos.is_cuda:
                self._replay(count, params)
            else:
                self._step(count, length, params)

    def look(self, count: int) -> Look:
        """Have the host told of the first `count` slots as they are after the rounds that it has asked for."""
        now = torch.stack([self.state.ended[:count].long(), self.state.made[:count]])
        if self.reading is None:
            return Look(now, None)
        told = torch.empty(now.shape, dtype=now.dtype, pin_memory=True)
        told.copy_(now, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return Look(told, ready)

    def read(self, places: Sequence[int], look: Look) -> tuple[np.ndarray, np.ndarray]:
        """Ids and logprobs [n, most] of slots, as far as they were drawn when `look` was taken; more may be there."""
        return self._read_rows(self.state.ids, places, look), self._read_rows(self.state.logprobs, places, look)

    def read_ids(self, places: Sequence[int], look: Look) -> np.ndarray:
        """The first of what `read` gives."""
        return self._read_rows(self.state.ids, places, look)

    def _read_rows(self, whole: Tensor, places: Sequence[int], look: Look) -> np.ndarray:
        if look.ready is not None and self.reading is not None:
            self.reading.wait_event(look.ready)
        with torch.cuda.stream(self.reading):
            return whole[torch.tensor(places, device=whole.device)].cpu().numpy()

    def _step(self, count: int, length: int, params: SamplingParams) -> None:
        places = torch.arange(count, device=self.eos.device)
        positions = self.state.position[:count]
        attend = OneToken(self.slots, positions, self.backbone.scale, length)
        hidden = self.backbone(self.state.token[:count], self.cos[positions], self.sin[positions], attend)
        self._choose(places, self.backbone.causal_lm.head(hidden), params)

    def _replay(self, count: int, params: SamplingParams) -> None:
        """The first step of a kind runs as it is, which compiles what must be; the second is captured."""
        key = (count, (params.temperature, params.top_p, params.top_k))
        if key not in self.graphs:
            self.graphs[key] = None
            self._step(count, self.slots.length, params)
            return
        graph = self.graphs[key]
        if graph is None:
            graph = self.graphs[key] = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile, for what has nothing to do with this.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._step(count, self.slots.length, params)
        graph.replay()
