"""What a forward and backward pass holds besides weights, gradients and optimizer.

Where layers are not compiled, by doing it on the meta device. Compiled layers keep what the compiler chooses: what the
matrix products and attention gave, and recompute what stands between them. For them it is reckoned, and was
compared with the measured peaks of benchmarks/README.md (within 2% there).
"""

from dataclasses import dataclass

import torch

from distillkit import MemoryUse
from distillkit_builtin.local.footprint import Footprint
from distillkit_builtin.local.memory.inference_sizes import FLOAT32, logits_bytes
from distillkit_builtin.local.memory.training_trace import Training, traced_bytes
from distillkit_builtin.local.memory.work import Work

GRADIENT_COPIES = 6
"""Of a chunk's logits in float32, where their gradient is made."""
BACKWARD = 4
"""Gradients of the widest layers' outputs that are there at once."""
UNTRACED = 2.5
"""How much more than compiled layers the others keep, where they cannot be traced."""
DISTRIBUTION_COPIES, TEACHER_COPIES = 8, 3
"""Of a chunk's distributions in float32, as a divergence and its gradient make them; more with the teachers'."""
MIXED = 0.7
"""The share of what float32 takes, where weights are float32 and products are not."""


@dataclass(frozen=True, slots=True)
class LossChunks:
    """Of a loss that reads distributions."""

    positions: int
    """Of a chunk."""
    teachers_hidden: tuple[int, ...]
    """The widths of the hidden states of teachers that are asked again; empty: none is."""


@dataclass(frozen=True, slots=True)
class Passes:
    """How micro-batches are computed."""

    training: Training
    size: Footprint
    work: Work
    max_tokens: int
    """Of a micro-batch."""
    compiled: bool
    chunks: LossChunks | None
    """None: the loss reads the sampled tokens' logprobs alone."""

    def use(self) -> tuple[MemoryUse, ...]:
        """Activations and logits, of the phase `training`."""
        sequences = self.work.batch(self.max_tokens)
        tokens = sequences * self.work.length
        what = f"activations of {tokens:,} tokens"
        uses = [MemoryUse(self.size.device, "training", what, self._activations(sequences, tokens))]
        if self.chunks is not None:
            what = f"head and loss of {self.chunks.positions:,} positions at once, and their gradients"
            responses = sequences * self.work.new
            uses.append(MemoryUse(self.size.device, "training", what, self._distributions(self.chunks, responses)))
        elif self.size.device.startswith("cuda"):
            logits = logits_bytes(self.size, sequences * self.work.new, copies=GRADIENT_COPIES)
            uses.append(MemoryUse(self.size.device, "training", "logits and their gradient", logits))
        return tuple(uses)

    def _distributions(self, chunks: LossChunks, responses: int) -> int:
        structure, width = self.size.structure, self.size.dtype.itemsize
        copies = DISTRIBUTION_COPIES + (TEACHER_COPIES if chunks.teachers_hidden else 0)
        chunk = min(chunks.positions, responses) * structure.vocabulary * (width + copies * FLOAT32)
        hidden = responses * width * (structure.hidden + sum(chunks.teachers_hidden))
        head = 0 if self.training.lora_rank else 2 * structure.vocabulary * structure.hidden * FLOAT32
        return chunk + hidden + head

    def _activations(self, sequences: int, tokens: int) -> int:
        if self.compiled:
            return self._kept_by_compiled_layers(tokens)
        traced = traced_bytes(self.training, self.work.items(sequences))
        if traced is None:
            return int(UNTRACED * self._kept_by_compiled_layers(tokens))
        mixed = self.training.lora_rank == 0 and self.size.dtype != torch.float32
        return int(traced * MIXED) + self._cast_weights() if mixed else traced

    def _kept_by_compiled_layers(self, tokens: int) -> int:
        structure, width = self.size.structure, self.size.dtype.itemsize
        stream = width if self.training.lora_rank else FLOAT32  # under autocast it is what the embeddings are
        between = 2 * structure.layers * structure.hidden
        products = max(0, structure.linear_outputs - between) + structure.attention_outputs
        kept = between * stream + products * width
        if self.training.checkpoints:  # what a layer begins with, and one layer whole
            kept = structure.layers * structure.hidden * stream + kept // max(1, structure.layers)
        backward = BACKWARD * 2 * structure.widest_output * width
        return tokens * (kept + backward) + self._cast_weights()

    def _cast_weights(self) -> int:
        """Weights in the compute dtype, where all are trained in float32."""
        cast = self.training.lora_rank == 0 and self.size.dtype != torch.float32
        return self.size.structure.linear_parameters * self.size.dtype.itemsize if cast else 0
