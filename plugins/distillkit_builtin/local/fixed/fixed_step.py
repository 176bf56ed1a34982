"""A step that reads one token of every row and gives the logits behind it, over tensors that never move.

So the device does the same work at each step: a CUDA graph holds it, kernel by kernel as transformers' forward starts
them. (torch.compile, by which transformers' `generate` comes to graphs, makes other kernels that round otherwise, and
half a minute of start-up for each model.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fixed.fixed_layers import FixedKeys, FixedStates
from distillkit_builtin.local.fixed.step_graph import Capture, StepGraph
from distillkit_builtin.local.fixed.stored_layer import StoredLayer


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What a step reads and moves on besides its cache; of all rows."""

    ids: Tensor
    """[rows, 1]: the tokens to be read."""
    positions: Tensor
    """[rows, 1]: their positions."""
    mask: Tensor | None
    """[rows, length]: 1 in columns that hold tokens; None where prompts are not padded."""
    place: Tensor
    """[1]: the column that the tokens come to."""

    @classmethod
    def allocate(cls, rows: int, length: int, device: torch.device, *, padded: bool) -> "StepInputs":
        """For that many rows and columns; `padded`: with a mask."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.long, device=device)

        return cls(zeros(rows, 1), zeros(rows, 1), zeros(rows, length) if padded else None, zeros(1))

    def first(self, rows: int, length: int) -> "StepInputs":
        """Of the first rows and columns, in the same memory."""
        mask = None if self.mask is None else self.mask[:rows, :length]
        return StepInputs(self.ids[:rows], self.positions[:rows], mask, self.place)

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
        inputs: StepInputs,
        length: int,
        capture: Capture | None,
    ) -> None:
        """`inputs` are of the step's own rows and `length`; `layers` have as many or more."""
        self.causal_lm, self.inputs, self.capture = causal_lm, inputs, capture
        self.cache = Cache(layers=[layer.lent(len(inputs.ids), length, inputs.place) for layer in layers])
        self._logits: Tensor | None = None
        self._graph: StepGraph | None = None

    def run(self) -> Tensor:
        """Read the tokens in `inputs` and move on; gives float32 logits [rows, vocabulary] until the next run.

        Raises:
            RuntimeError: if the step is to be recorded and does what no graph can hold.
        """
        if self._logits is None or self.capture is None:
            self._logits = self._work()
            return self._logits
        if self._graph is None:
            self._graph = self.capture(self._keep_logits)
        self._graph.replay()
        return self._logits

    def _keep_logits(self) -> None:
        self._logits = self._work()

    def _work(self) -> Tensor:
        """What a run lets the device do, and the logits."""
        inputs, padded = self.inputs, {}
        for layer in self.cache.layers:
            if isinstance(layer, FixedKeys):
                layer.written = False
        if inputs.mask is not None:
            inputs.mask.index_fill_(1, inputs.place, 1)
            padded = {"attention_mask": inputs.mask}
        hidden = self.causal_lm.hidden_states(inputs.ids, self.cache, position_ids=inputs.positions, **padded)
        for layer in self.cache.layers:
            if isinstance(layer, FixedStates):
                layer.settle()
        logits = self.causal_lm.head(hidden[:, -1]).float()
        inputs.positions.add_(1)
        inputs.place.add_(1)
        return logits
