"""What a forward and backward pass holds besides weights, gradients and optimizer.

Where layers are not compiled, by doing it on the meta device. For compiled layers it is reckoned by what PyTorch's
partitioner keeps of a layer like Llama's or Qwen3's, which can be seen without a GPU (tests/builtin/local/
packing/test_compiled_layers.py), and was compared with the measured peaks of benchmarks/README.md.
"""

from dataclasses import dataclass

import torch

from distillkit import MemoryUse
from distillkit_builtin.local.memory.inference_sizes import FLOAT32, logits_bytes
from distillkit_builtin.local.memory.training_trace import Training, traced_bytes
from distillkit_builtin.local.memory.work import Work
from distillkit_builtin.local.model.footprint import Footprint

BACKWARD = 4
"""Gradients of the widest layers' outputs that are there at once."""
UNTRACED = 1.6
"""How much more than compiled layers the others keep, where they cannot be traced."""
DISTRIBUTION_COPIES, TEACHER_COPIES = 8, 3
"""Of a chunk's distributions in float32, as a divergence and its gradient make them; more with the teachers'."""
SAMPLED_COPIES = 3
"""The same where a loss reads the sampled tokens' logprobs alone, and nothing is compiled."""
MIXED = 0.7
"""The share of what float32 takes, where weights are float32 and products are not."""


@dataclass(frozen=True, slots=True)
class LossChunks:
    """Of a loss that reads distributions, or is computed with a head that is trained."""

    positions: int
    """Of a chunk."""
    distributions: bool
    """Whether it reads any."""
    teachers_hidden: tuple[int, ...] = ()
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
    routed: int
    """What a token's experts read and give in one layer (`routed_numbers`)."""
    recomputes: bool
    """Whether compiled layers keep no more than what products and attention gave, and what goes on between layers."""
    chunks: LossChunks | None
    """None: the loss reads the sampled tokens' logprobs alone, and the head is frozen."""

    def use(self) -> tuple[MemoryUse, ...]:
        """Activations and logits, of the phase `training`."""
        sequences = self.work.batch(self.max_tokens, balanced=self.compiled or self.training.packs)
        tokens = sequences * self.work.length
        what = f"activations of {tokens:,} tokens"
        uses = [MemoryUse(self.size.device, "training", what, self._activations(sequences, tokens))]
        if self.chunks is not None:
            what = f"head and loss of {self.chunks.positions:,} positions at once, and their gradients"
            responses = sequences * self.work.new
            uses.append(MemoryUse(self.size.device, "training", what, self._chunk(self.chunks, responses)))
        elif self.size.device.startswith("cuda"):
            logits = self._logits(sequences * self.work.new)
            uses.append(MemoryUse(self.size.device, "training", "logits and their gradient", logits))
        return tuple(uses)

    def _logits(self, positions: int) -> int:
        """A chunk's logits and their gradient, without a float32 copy where code is compiled; hidden states too."""
        structure, width = self.size.structure, self.size.dtype.itemsize
        return 2 * logits_bytes(self.size, positions, copies=0) + 2 * positions * structure.hidden * width

    def _chunk(self, chunks: LossChunks, responses: int) -> int:
        structure, width = self.size.structure, self.size.dtype.itemsize
        chunk = min(chunks.positions, responses) * structure.vocabulary * (width + self._beside_logits(chunks))
        hidden = responses * width * (structure.hidden + sum(chunks.teachers_hidden))
        head = 0 if self.training.lora_rank else 2 * structure.vocabulary * structure.hidden * FLOAT32
        return chunk + hidden + head

    def _beside_logits(self, chunks: LossChunks) -> int:
        """Bytes besides each number of a chunk's logits; on CUDA the softmax is compiled, and its gradient is all."""
        if chunks.distributions:
            return FLOAT32 * (DISTRIBUTION_COPIES + (TEACHER_COPIES if chunks.teachers_hidden else 0))
        return self.size.dtype.itemsize if self.size.device.startswith("cuda") else FLOAT32 * SAMPLED_COPIES

    def _activations(self, sequences: int, tokens: int) -> int:
        if self.compiled:
            return self._kept_by_compiled_layers(tokens)
        traced = traced_bytes(self.training, self.work.items(sequences))
        if traced is None:
            return int(UNTRACED * self._kept_by_compiled_layers(self._computed(sequences)))
        mixed = self.training.lora_rank == 0 and self.size.dtype != torch.float32
        return int(traced * MIXED) + self._cast_weights() if mixed else traced

    def _computed(self, sequences: int) -> int:
        """Tokens of so many sequences in layers that are not compiled: where they are packed, a prompt stands once."""
        if not self.training.packs:
            return sequences * self.work.length
        return -(-sequences // self.work.completions_each) * self.work.prompt + sequences * self.work.new

    def _kept_by_compiled_layers(self, tokens: int) -> int:
        structure, width = self.size.structure, self.size.dtype.itemsize
        stream = structure.layers * structure.hidden * (width if self.training.lora_rank else FLOAT32)  # or autocast's
        kept = stream + self._given_by_layers() * width
        if self.training.checkpoints:  # what a layer begins with, and one layer whole
            kept = stream + kept // max(1, structure.layers)
        backward = BACKWARD * structure.widest_output * width
        return tokens * (kept + backward) + self._cast_weights()

    def _given_by_layers(self) -> int:
        """Numbers that all layers keep of one token, besides what each begins with.

        What queries, keys, values, gates and the outputs of attention and its projection are; rotated queries and keys
        where what they were normed from is kept too; unless that is recomputed, what the two norms and SwiGLU gave;
        and what goes through experts.
        """
        structure = self.size.structure
        between = structure.layers * structure.hidden
        products = max(0, structure.linear_outputs - 2 * between) + between + structure.attention_outputs
        rotated = structure.attention_outputs + structure.cached // 2 if structure.norms_heads else 0
        recomputed = 0 if self.recomputes else 2 * between + structure.layers * structure.widest_output
        return products + rotated + recomputed + structure.layers * self.routed

    def _cast_weights(self) -> int:
        """Weights in the compute dtype, where all are trained in float32."""
        cast = self.training.lora_rank == 0 and self.size.dtype != torch.float32
        return self.size.structure.linear_parameters * self.size.dtype.itemsize if cast else 0
