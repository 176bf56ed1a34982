"""A step that reads one token of every row and gives the logits behind it, over tensors that never move.

So the device does the same work at each step: a CUDA graph holds it, kernel by kernel as transformers' forward starts
them. (torch.compile, by which transformers' `generate` comes to graphs, makes other kernels that round otherwise, and
half a minute of start-up for each model.)
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from distillkit_builtin.local.fixed.fixed_layers import FixedKeys, FixedStates
from distillkit_builtin.local.fixed.fused_norms import FusedNorms
from distillkit_builtin.local.fixed.step_graph import Capture, StepGraph
from distillkit_builtin.local.fixed.stored_layer import StoredLayer
from distillkit_builtin.local.model.causal_lm import CausalLM


@dataclass(frozen=True, slots=True)
class StepTensors:
    """What a step reads, moves on and gives besides its cache; of all rows."""

    ids: Tensor
    """[rows, 1]: the tokens to be read."""
    positions: Tensor
    """[rows, 1]: their positions."""
    mask: Tensor | None
    """[rows, length]: 1 in columns that hold tokens; None where prompts are not padded."""
    place: Tensor
    """[1]: the column that the tokens come to."""
    logits: Tensor
    """[rows, vocabulary] float32: what the step gives."""

    @classmethod
    def allocate(cls, rows: int, length: int, vocabulary: int, device: torch.device, *, padded: bool) -> "StepTensors":
        """For that many rows and columns; `padded`: with a mask."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        logits = torch.zeros(rows, vocabulary, device=device)
        return cls(zeros(rows, 1), zeros(rows, 1), zeros(rows, length) if padded else None, zeros(1), logits)

    def first(self, rows: int, length: int) -> "StepTensors":
        """Of the first rows and columns, in the same memory."""
        mask = None if self.mask is None else self.mask[:rows, :length]
        return StepTensors(self.ids[:rows], self.positions[:rows], mask, self.place, self.logits[:rows])

    def move(self, rows: Tensor) -> None:
        """Let the first rows be the rows `rows` [n] of now."""
        for whole in (self.ids, self.positions, self.mask):
            if whole is not None:
                whole[: len(rows)] = whole[rows]


class FixedStep:
    """The step of some rows and columns; its first run is as it comes, later ones are replayed where that is asked."""

    def __init__(
        self,
        causal_lm: CausalLM,
        layers: Sequence[StoredLayer],
        tensors: StepTensors,
        length: int,
        capture: Capture | None,
        norms: FusedNorms | None,
    ) -> None:
        """`tensors` are of the step's own rows and `length`; `layers` have as many or more."""
        self.causal_lm, self.tensors, self.capture, self.norms = causal_lm, tensors, capture, norms
        self.cache = Cache(layers=[layer.lent(len(tensors.ids), length, tensors.place) for layer in layers])
        self._has_run = False
        self._graph: StepGraph | None = None

    def run(self) -> Tensor:
        """Read the tokens in `tensors` and move on; gives float32 logits [rows, vocabulary] until the next step.

        Raises:
            RuntimeError: if the step is to be recorded and does what no graph can hold.
        """
        if self.capture is None or not self._has_run:
            self._has_run = True
            self._work()
        else:
            if self._graph is None:
                self._graph = self.capture(self._work)
            self._graph.replay()
        return self.tensors.logits

    def _work(self) -> None:
        """What a run lets the device do."""
        with nullcontext() if self.norms is None else self.norms.in_the_place_of(self.causal_lm.model):
            self._read()

    def _read(self) -> None:
        tensors, padded = self.tensors, {}
        for layer in self.cache.layers:
            if isinstance(layer, FixedKeys):
                layer.written = False
        if tensors.mask is not None:
            tensors.mask.index_fill_(1, tensors.place, 1)
            padded = {"attention_mask": tensors.mask}
        hidden = self.causal_lm.hidden_states(tensors.ids, self.cache, position_ids=tensors.positions, **padded)
        for layer in self.cache.layers:
            if isinstance(layer, FixedStates):
                layer.settle()
        tensors.logits.copy_(self.causal_lm.head(hidden[:, -1]))
        tensors.positions.add_(1)
        tensors.place.add_(1)
