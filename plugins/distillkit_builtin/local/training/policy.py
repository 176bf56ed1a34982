"""The student's model: which of its parameters are trained, and the logprobs that they give."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Unpack

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from distillkit_builtin.local.batches.micro_batching import packed_micro_batches, padded_micro_batches
from distillkit_builtin.local.device import autocast
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.lora.adapters import loaded_adapter
from distillkit_builtin.local.lora.lora import use_adapted_linear
from distillkit_builtin.local.lora.lora_placement import LayerOptions, LoraOptions, put_lora
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse, ResponseStates
from distillkit_builtin.local.model.sharding import ShardedModel, gather_full_tensors, shard_model
from distillkit_builtin.local.model_files.model_class import text_parameters
from distillkit_builtin.local.model_files.quantization import require_differentiable
from distillkit_builtin.local.packing.compiled_layers import (
    Compiler,
    compile_layer,
    mark_token_dimension_dynamic,
    recomputing,
)
from distillkit_builtin.local.packing.packed_attention import packed_attention
from distillkit_builtin.local.packing.packed_forward import packed_response_states
from distillkit_builtin.local.packing.packing_proof import require_packable
from distillkit_builtin.local.training.trainable_adapter import put_trainable


class Policy:
    """All weights of a model that text goes through, or a LoRA on a frozen base, in training."""

    def __init__(self, causal_lm: CausalLM, trained: Mapping[str, torch.nn.Parameter]) -> None:
        """`trained` are the float32 parameters that the optimizer changes, by name."""
        self.causal_lm = causal_lm
        self.trained = dict(trained)
        (causal_lm.adapter or causal_lm.model).eval()
        self.packs = False
        """Whether sequences are packed; else they are padded."""
        self.sharded: ShardedModel | None = None
        """The model, where this rank has only a part of its weights."""
        self.ranks = 1
        """Among how many the weights are sharded."""

    @classmethod
    def lora(
        cls, causal_lm: CausalLM, rank: int, alpha: int, dropout: float, seed: int, **layers: Unpack[LayerOptions]
    ) -> "Policy":
        """Put a LoRA on the text decoder's linear layers, or the `layers` that were chosen, in float32.

        Raises InputError if it cannot be put there.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            causal_lm.adapter = put_lora(causal_lm.model, LoraOptions(rank, alpha, dropout, **layers))
        return cls._with_adapter(causal_lm)

    @classmethod
    def lora_from(cls, causal_lm: CausalLM, folder: Path, dropout: float, **layers: Unpack[LayerOptions]) -> "Policy":
        """Go on training the LoRA in a directory; `dropout` is of this training, not a part of the model.

        Raises InputError if it does not fit, is more than a LoRA, or is on other `layers` than were chosen.
        """
        causal_lm.adapter = put_trainable(causal_lm.model, folder, loaded_adapter(folder), dropout, **layers)
        return cls._with_adapter(causal_lm)

    @classmethod
    def _with_adapter(cls, causal_lm: CausalLM) -> "Policy":
        use_adapted_linear(causal_lm.model)
        require_differentiable(causal_lm.model)
        adapted = causal_lm.adapter or causal_lm.model
        return cls(causal_lm, {name: p for name, p in adapted.named_parameters() if p.requires_grad})

    @classmethod
    def full(cls, causal_lm: CausalLM) -> "Policy":
        """Train every weight that text goes through, and no tower's; the model must be the student's own."""
        trained = text_parameters(causal_lm.model)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        return cls(causal_lm, trained)

    def pack(self) -> None:
        """Train on packed sequences. Raises UnsupportedModelError where they are not known to give the same."""
        require_packable(self.causal_lm)
        self.packs = True

    def shard(self, ranks: int) -> None:
        """Keep only this rank's part of the weights, one of `ranks`; those parts are what is trained from now on."""
        self.sharded, self.ranks = shard_model(self.causal_lm.model), ranks
        self.trained = {name: p for name, p in self.causal_lm.model.named_parameters() if p.requires_grad}

    def compile(self, compiler: str | Compiler = "inductor", *, recompute: bool = False) -> None:
        """Compile what is trained a decoder layer at a time: all of them share one compiled program.

        `recompute`: it keeps less for the backward pass, and multiplies no more (`compiled_layers.recomputing`).

        Comes after `shard`, which changes the layers' classes; its hooks stay outside. Raises UnsupportedModelError
        unless sequences are packed: padded ones have too many shapes, and each would be compiled anew.
        """
        if not self.packs:
            raise UnsupportedModelError("sequences are padded, not packed")
        if recompute:
            compiler = recomputing(compiler)
        for module in self.causal_lm.backbone.modules():
            if isinstance(module, GradientCheckpointingLayer):
                compile_layer(module, compiler)
        for name, module in self.causal_lm.backbone.named_modules():
            if name.rpartition(".")[2] == "rotary_emb":
                module.register_forward_hook(lambda module, inputs, angles: mark_token_dimension_dynamic(*angles))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """A context for forward passes as training makes them, with nothing random in them."""
        with packed_attention(self.causal_lm) if self.packs else nullcontext():
            yield

    @contextmanager
    def training(self) -> Iterator[None]:
        """A context for forward and backward passes: what is asked for at random, the LoRA's dropout, is on.

        Nothing else of the model is in training mode: its own dropout and routers that sample their experts would make
        another function of it than the one that sampled.
        """
        dropouts = [layer.lora_dropout for layer in self.causal_lm.model.modules() if isinstance(layer, LoraLayer)]
        try:
            for dropout in dropouts:
                dropout.train()
            with self.computing():
                yield
        finally:
            for dropout in dropouts:
                dropout.eval()

    def micro_batches(self, items: Sequence[PromptAndResponse], max_tokens: int) -> list[list[int]]:
        """Indices of `items` in groups that `logprobs` takes, each of at most `max_tokens` tokens (or one item)."""
        if self.packs:
            return packed_micro_batches(items, max_tokens)
        one_length = not self.causal_lm.batching.right_padding
        return padded_micro_batches(list(map(len, items)), max_tokens, one_length=one_length)

    def logprobs(self, items: Sequence[PromptAndResponse], counted: Tensor | None = None) -> Tensor:
        """Float32 logprobs of the items' responses, end to end [R_1 + R_2 + ...], with gradient if enabled.

        Those at the indices `counted` [n] alone, unless that is None.
        """
        return self.with_response_states(items, counted, self.causal_lm.logprobs)

    def with_response_states(
        self, items: Sequence[PromptAndResponse], counted: Tensor | None, work: Callable[[ResponseStates], Tensor]
    ) -> Tensor:
        """What `work` makes of what the head reads, while the head's weights are whole; `items` as in `logprobs`."""

        def compute() -> Tensor:
            with autocast(self.causal_lm.device.device, self.causal_lm.dtype):  # all weights are trained in float32
                states = self._response_states(items)
                if counted is not None:
                    states = ResponseStates(states.hidden[counted], states.ids[counted])
                return work(states)

        return compute() if self.sharded is None else self.sharded(compute)

    def whole_weights(self) -> dict[str, Tensor]:
        """All weights by name, whole, tied ones once; where they are sharded, every rank must ask at the same time."""
        named = self.causal_lm.model.state_dict(keep_vars=True)
        first = {id(tensor): name for name, tensor in reversed(named.items())}
        return gather_full_tensors((name, tensor) for name, tensor in named.items() if first[id(tensor)] == name)

    def _response_states(self, items: Sequence[PromptAndResponse]) -> ResponseStates:
        """What the head reads: the head, and what a loss needs of it, come behind this."""
        return packed_response_states(self.causal_lm, items) if self.packs else self.causal_lm.response_states(items)
