"""Rows that are sampled in steps of fixed shapes, and the memory that stays for the next ones.

A step reads columns up to a length that doubles as rows grow, and rows up to a number that halves as rows end: a few
shapes, each with a step of its own over the same memory. Rows that have ended stay in their step until half have.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distillkit_builtin.local.batches.cached_rows import CachedRows
from distillkit_builtin.local.fixed.fixed_step import FixedStep, StepTensors
from distillkit_builtin.local.fixed.fused_norms import FusedNorms
from distillkit_builtin.local.fixed.step_graph import Capture
from distillkit_builtin.local.fixed.stored_layer import StoredLayer
from distillkit_builtin.local.model.causal_lm import CausalLM

SHORTEST = 256
"""Columns of the shortest step; others have twice as many as the one before."""
ROUND = 128
"""Memory is for a multiple of this many columns, so that a slightly longer prompt does not need more."""
MOST_STEPS = 32
"""Steps that are kept, since each graph takes memory of its own; a batch has a dozen from beginning to end."""


@dataclass(slots=True)
class FixedMemory:
    """Memory for rows of a model, and steps over it."""

    causal_lm: CausalLM
    layers: list[StoredLayer]
    tensors: StepTensors
    capacity: int
    """Rows."""
    length: int
    """Columns."""
    shortest: int
    """Columns of the shortest step."""
    capture: Capture | None
    norms: FusedNorms | None
    steps: dict[tuple[int, int], FixedStep] = field(default_factory=dict)
    """By rows and columns, the last used one last."""
    weights: tuple[int, ...] = ()
    """Where the model's weights were when the steps were made."""

    def fits(self, rows: int, columns: int, *, padded: bool) -> bool:
        """Whether so many rows and columns have room; `padded`: with a mask."""
        return rows <= self.capacity and columns <= self.length and (self.tensors.mask is not None) == padded

    def step(self, rows: int, columns: int) -> FixedStep:
        """Of so many rows, with at least so many columns."""
        length = self.shortest
        while length < columns:
            length *= 2
        length = min(length, self.length)
        step = self.steps.pop((rows, length), None)
        if step is None:
            tensors = self.tensors.first(rows, length)
            step = FixedStep(self.causal_lm, self.layers, tensors, length, self.capture, self.norms)
            while len(self.steps) >= MOST_STEPS:
                del self.steps[next(iter(self.steps))]
        self.steps[rows, length] = step
        return step

    @property
    def size_bytes(self) -> int:
        """Of what is kept of all rows; a graph's own is not counted."""
        return sum(layer.size_bytes for layer in self.layers)

    def require_weights_in_place(self) -> None:
        """Forget steps that were made while weights were elsewhere: their graphs read from there."""
        weights = tuple(tensor.data_ptr() for tensor in _held(self.causal_lm.model))
        if weights != self.weights:
            self.steps.clear()
            self.weights = weights


def _held(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


@dataclass(slots=True)
class FixedRows:
    """Rows that are sampled now."""

    memory: FixedMemory
    count: int
    """Rows of the next step; some may have ended."""
    columns: int
    """Those that hold tokens."""
    live: Tensor | None = None
    """[n]: which rows of the step have not ended; None: all."""

    def select(self, index: Tensor) -> None:
        """Go on with the rows `index` [n] of those that have not ended; no row twice."""
        live = index if self.live is None else self.live[index]
        count = 1 << (len(live) - 1).bit_length()  # the least power of two: few sizes, so few steps
        if 2 * len(live) > self.count or count >= self.count:
            self.live = live
            return
        padded = torch.cat([live, live[:1].expand(count - len(live))])
        for layer in self.memory.layers:
            layer.move(padded, self.columns)
        self.memory.tensors.move(padded)
        self.count = count
        self.live = None if count == len(live) else torch.arange(len(live), device=live.device)

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Append one token [n] to each row, and give float32 logits [n, vocabulary] behind it, until the next call."""
        step = self.memory.step(self.count, self.columns + 1)
        ids = step.tensors.ids[:, 0]
        if self.live is None:
            ids.copy_(tokens)
        else:
            ids.index_copy_(0, self.live, tokens)
        logits = step.run()
        self.columns += 1
        return logits if self.live is None else logits[self.live]


@dataclass(slots=True)
class FixedDecoder:
    """Begins rows behind prompts, in memory that is kept from one batch to the next."""

    causal_lm: CausalLM
    capture: Capture | None
    """None: steps are run as they come."""
    norms: FusedNorms | None = None
    """None: norms are computed operation by operation."""
    shortest: int = SHORTEST
    memory: FixedMemory | None = None

    def start(self, prompts: CachedRows, rows: Tensor, new_tokens: int, vocabulary: int) -> FixedRows:
        """Rows `rows` [n] of those that `prompts` hold, for `new_tokens` tokens each; logits are of `vocabulary` ids.

        Raises:
            UnsupportedStepError: if what is cached of the prompts cannot be kept in tensors that never move.
        """
        count, columns = len(rows), prompts.columns
        memory = self._memory_for(prompts, count, columns + new_tokens, vocabulary)
        memory.require_weights_in_place()
        for home, layer in zip(memory.layers, prompts.cache.layers, strict=True):
            home.fill(layer, rows, columns)
        tensors = memory.tensors
        tensors.positions[:count] = prompts.lengths[rows]
        tensors.place.fill_(columns)
        if tensors.mask is not None and prompts.mask is not None:
            tensors.mask.zero_()
            tensors.mask[:count, :columns] = prompts.mask[rows]
        return FixedRows(memory, count, columns)

    @property
    def size_bytes(self) -> int:
        """Of the memory that stays."""
        return 0 if self.memory is None else self.memory.size_bytes

    def free(self) -> bool:
        """Free the memory, which is made again when it is needed, and return whether there was any."""
        had, self.memory = self.memory is not None, None
        return had

    def _memory_for(self, prompts: CachedRows, rows: int, columns: int, vocabulary: int) -> FixedMemory:
        memory = self.memory
        if memory is not None and memory.fits(rows, columns, padded=prompts.mask is not None):
            return memory
        self.memory = memory = None  # frees it first
        length = -(-columns // ROUND) * ROUND
        layers = [StoredLayer.allocate(layer, rows, length) for layer in prompts.cache.layers]
        where, padded = prompts.lengths.device, prompts.mask is not None
        tensors = StepTensors.allocate(rows, length, vocabulary, where, padded=padded)
        size = rows, length, self.shortest
        self.memory = FixedMemory(self.causal_lm, layers, tensors, *size, self.capture, self.norms)
        return self.memory
