"""The student's causal_lm: what is trained of it, and the copy that samples."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse, micro_batches
from distillkit_builtin.local.compiled_layers import Backend, compile_layer, vary_in_tokens
from distillkit_builtin.local.device import autocast
from distillkit_builtin.local.fast.backbone import UnsupportedModelError
from distillkit_builtin.local.lora import lora_layers, simplify
from distillkit_builtin.local.packed_attention import packed_attention
from distillkit_builtin.local.packing import (
    packed_batches,
    packed_logprobs,
    require_packable,
)
from distillkit_builtin.local.ranks.sharding import Responses, gathered, sharded, whole


class Policy:
    """All weights, or a LoRA on a frozen base. Sampling uses a copy in the compute dtype, refreshed at each sync."""

    def __init__(self, causal_lm: CausalLM, trained: Mapping[str, torch.nn.Parameter]) -> None:
        """`trained` are the float32 parameters that the optimizer changes, by name."""
        self.causal_lm = causal_lm
        self.trained = dict(trained)
        self.sampler = self._sampler_copy()
        self.packs = False
        """Whether sequences are packed; else they are padded."""
        self.sharded: Responses | None = None
        """Of the causal_lm, where this rank has only a part of its weights."""
        self.ranks = 1
        """Among how many the weights are sharded."""

    @classmethod
    def lora(cls, causal_lm: CausalLM, rank: int, alpha: int, dropout: float, seed: int) -> "Policy":
        """Put a LoRA on every linear layer but the head. The adapter is float32 whatever the base is."""
        config = LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            causal_lm.adapter = get_peft_model(causal_lm.model, config)
        simplify(causal_lm.model)
        trained = {name: p for name, p in causal_lm.adapter.named_parameters() if p.requires_grad}
        return cls(causal_lm, trained)

    @classmethod
    def full(cls, causal_lm: CausalLM) -> "Policy":
        """Train every weight; the causal_lm must be the student's own."""
        causal_lm.model.requires_grad_(True)
        return cls(causal_lm, dict(causal_lm.model.named_parameters()))

    def compile(self, backend: str | Backend = "inductor") -> None:
        """Compile what is trained a decoder layer at a time: all of them share one compiled program.

        Comes after `shard`, which changes the layers' classes; its hooks stay outside. Raises UnsupportedModelError
        unless sequences are packed: padded ones have too many forms, and each would be compiled anew.
        """
        if not self.packs:
            raise UnsupportedModelError("sequences are padded, not packed")
        for module in self.causal_lm.backbone.modules():
            if isinstance(module, GradientCheckpointingLayer):
                compile_layer(module, backend)
        rotary = self.causal_lm.backbone.get_submodule("rotary_emb")
        rotary.register_forward_hook(lambda module, inputs, angles: vary_in_tokens(*angles))

    @contextmanager
    def training(self) -> Iterator[None]:
        """Dropout and activation checkpointing are on, until the backward passes are done."""
        module = self.causal_lm.adapter or self.causal_lm.model
        module.train()
        try:
            with packed_attention(self.causal_lm) if self.packs else nullcontext():
                yield
        finally:
            module.eval()

    def pack(self) -> None:
        """Train on packed sequences. Raises UnsupportedModelError where they are not known to give the same."""
        require_packable(self.causal_lm)
        self.packs = True

    def micro_batches(self, items: Sequence[PromptAndResponse], max_tokens: int) -> list[list[int]]:
        """Places of `items` in groups that `logprobs` takes, each of at most `max_tokens` tokens (or one item)."""
        return packed_batches(items, max_tokens) if self.packs else micro_batches(list(map(len, items)), max_tokens)

    def logprobs(self, items: Sequence[PromptAndResponse]) -> Tensor:
        """Float32 logprobs of the items' responses, end to end [R_1 + R_2 + ...], with gradient if enabled."""
        return self._read(items) if self.sharded is None else self.sharded(items)

    def shard(self, ranks: int) -> None:
        """Keep this rank's part of the weights alone; what is trained are those parts. Sampling keeps a whole copy."""
        self.sharded, self.ranks = sharded(self.causal_lm.model, self._read), ranks
        self.trained = dict(self.causal_lm.model.named_parameters())

    def _read(self, items: Sequence[PromptAndResponse]) -> Tensor:
        with autocast(
            self.causal_lm.device.device, self.causal_lm.dtype
        ):  # the weights are float32 where all are trained
            return packed_logprobs(self.causal_lm, items) if self.packs else self.causal_lm.response_logprobs(items)[0]

    def _sampler_copy(self) -> CausalLM:
        """The causal_lm without adapter layers; it shares every tensor that training does not change."""
        source = self.causal_lm
        if source.adapter is None:
            parameters = source.model.parameters()  # buffers stay as they are: rotary frequencies need float32
            copies = {id(p): nn.Parameter(p.detach().to(source.dtype, copy=True), False) for p in parameters}
            return CausalLM(copy.deepcopy(source.model, dict(copies)), source.device, source.dtype)
        adapted = list(lora_layers(source.model))
        merged = {id(layer.get_base_layer().get_parameter("weight")) for _, layer in adapted}
        shared = {id(t): t for t in (*source.model.parameters(), *source.model.buffers()) if id(t) not in merged}
        model = copy.deepcopy(source.model, shared)
        for name, layer in list(lora_layers(model)):
            model.set_submodule(name, layer.get_base_layer())
        return CausalLM(model, source.device, source.dtype)

    def whole_weights(self) -> dict[str, Tensor]:
        """All weights by name, whole, tied ones once; where they are sharded, every rank must ask at the same time."""
        named = self.causal_lm.model.state_dict(keep_vars=True)
        first = {id(tensor): name for name, tensor in reversed(named.items())}
        return gathered((name, tensor) for name, tensor in named.items() if first[id(tensor)] == name)

    @torch.no_grad()
    def refresh_sampler(self) -> None:
        """Bring the sampling copy to the current weights: `W + scaling * B A`, added in float32."""
        if self.causal_lm.adapter is None:
            for mine, theirs in zip(self.sampler.model.parameters(), self.causal_lm.model.parameters(), strict=True):
                mine.copy_(whole(theirs))
            return
        for name, layer in lora_layers(self.causal_lm.model):
            target = self.sampler.model.get_submodule(name).get_parameter("weight")
            delta: Tensor = layer.get_delta_weight("default")
            target.copy_(layer.get_base_layer().get_parameter("weight").float() + delta.float())
