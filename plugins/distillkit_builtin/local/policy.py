"""The student's network: what is trained of it, and the copy that samples."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from distillkit_builtin.local.causal_lm import Network, PromptAndResponse, micro_batches
from distillkit_builtin.local.compiled import Backend, compile_layer, vary_in_tokens
from distillkit_builtin.local.device import autocast
from distillkit_builtin.local.fast.backbone import Unknown
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

    def __init__(self, network: Network, trained: Mapping[str, torch.nn.Parameter]) -> None:
        """`trained` are the float32 parameters that the optimizer changes, by name."""
        self.network = network
        self.trained = dict(trained)
        self.sampler = self._sampler_copy()
        self.packs = False
        """Whether sequences are packed; else they are padded."""
        self.sharded: Responses | None = None
        """Of the network, where this rank has only a part of its weights."""
        self.ranks = 1
        """Among how many the weights are sharded."""

    @classmethod
    def lora(cls, network: Network, rank: int, alpha: int, dropout: float, seed: int) -> "Policy":
        """Put a LoRA on every linear layer but the head. The adapter is float32 whatever the base is."""
        config = LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network.adapter = get_peft_model(network.model, config)
        simplify(network.model)
        trained = {name: p for name, p in network.adapter.named_parameters() if p.requires_grad}
        return cls(network, trained)

    @classmethod
    def full(cls, network: Network) -> "Policy":
        """Train every weight; the network must be the student's own."""
        network.model.requires_grad_(True)
        return cls(network, dict(network.model.named_parameters()))

    def compile(self, backend: str | Backend = "inductor") -> None:
        """Compile what is trained a decoder layer at a time: all of them share one compiled program.

        Comes after `shard`, which changes the layers' classes; its hooks stay outside. Raises Unknown unless sequences
        are packed: padded ones have too many forms, and each would be compiled anew.
        """
        if not self.packs:
            raise Unknown("sequences are padded, not packed")
        for module in self.network.trunk.modules():
            if isinstance(module, GradientCheckpointingLayer):
                compile_layer(module, backend)
        rotary = self.network.trunk.get_submodule("rotary_emb")
        rotary.register_forward_hook(lambda module, inputs, angles: vary_in_tokens(*angles))

    @contextmanager
    def training(self) -> Iterator[None]:
        """Dropout and activation checkpointing are on, until the backward passes are done."""
        module = self.network.adapter or self.network.model
        module.train()
        try:
            with packed_attention(self.network) if self.packs else nullcontext():
                yield
        finally:
            module.eval()

    def pack(self) -> None:
        """Train on packed sequences. Raises Unknown for a model of which it is not known to give the same."""
        require_packable(self.network)
        self.packs = True

    def micro_batches(self, items: Sequence[PromptAndResponse], max_tokens: int) -> list[list[int]]:
        """Places of `items` in groups that `logprobs` takes, each of at most `max_tokens` tokens (or one item)."""
        return packed_batches(items, max_tokens) if self.packs else micro_batches(list(map(len, items)), max_tokens)

    def logprobs(self, items: Sequence[PromptAndResponse]) -> Tensor:
        """Float32 logprobs of the items' responses, end to end [R_1 + R_2 + ...], with gradient if enabled."""
        return self._read(items) if self.sharded is None else self.sharded(items)

    def shard(self, ranks: int) -> None:
        """Keep this rank's part of the weights alone; what is trained are those parts. Sampling keeps a whole copy."""
        self.sharded, self.ranks = sharded(self.network.model, self._read), ranks
        self.trained = dict(self.network.model.named_parameters())

    def _read(self, items: Sequence[PromptAndResponse]) -> Tensor:
        with autocast(self.network.device.device, self.network.dtype):  # the weights are float32 where all are trained
            return packed_logprobs(self.network, items) if self.packs else self.network.response_logprobs(items)[0]

    def _sampler_copy(self) -> Network:
        """The network without adapter layers; it shares every tensor that training does not change."""
        source = self.network
        if source.adapter is None:
            parameters = source.model.parameters()  # buffers stay as they are: rotary frequencies need float32
            copies = {id(p): nn.Parameter(p.detach().to(source.dtype, copy=True), False) for p in parameters}
            return Network(copy.deepcopy(source.model, dict(copies)), source.device, source.dtype)
        adapted = list(lora_layers(source.model))
        merged = {id(layer.get_base_layer().get_parameter("weight")) for _, layer in adapted}
        shared = {id(t): t for t in (*source.model.parameters(), *source.model.buffers()) if id(t) not in merged}
        model = copy.deepcopy(source.model, shared)
        for name, layer in list(lora_layers(model)):
            model.set_submodule(name, layer.get_base_layer())
        return Network(model, source.device, source.dtype)

    def whole_weights(self) -> dict[str, Tensor]:
        """All weights by name, whole, tied ones once; where they are sharded, every rank must ask at the same time."""
        named = self.network.model.state_dict(keep_vars=True)
        first = {id(tensor): name for name, tensor in reversed(named.items())}
        return gathered((name, tensor) for name, tensor in named.items() if first[id(tensor)] == name)

    @torch.no_grad()
    def refresh_sampler(self) -> None:
        """Bring the sampling copy to the current weights: `W + scaling * B A`, added in float32."""
        if self.network.adapter is None:
            for mine, theirs in zip(self.sampler.model.parameters(), self.network.model.parameters(), strict=True):
                mine.copy_(whole(theirs))
            return
        for name, layer in lora_layers(self.network.model):
            target = self.sampler.model.get_submodule(name).get_parameter("weight")
            delta: Tensor = layer.get_delta_weight("default")
            target.copy_(layer.get_base_layer().get_parameter("weight").float() + delta.float())
