"""One model of a service that trains: a LoRA or all weights, AdamW, and the operations of SDKs on them.

Logprobs are those of transformers' own forward in float32, LoRA is PEFT's, AdamW torch's. Sequences of one length are
computed together, so nothing is padded.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.training.datums import Batch, Computed, Datum, loss_named, require_targets
from distillkit_loopback.transport.messages import Body

SAMPLING_WEIGHTS = "sampling.safetensors"
"""The weights that a deployment loads, adapters merged."""
STATE = "state.safetensors"
"""Weights and moments, as `save` writes them."""
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
MOST_TOKENS = 8192
"""The most tokens of one forward pass."""


class AdamParams(Body):
    """Learning rate and other Adam parameters of one step."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0


Normalization = Literal["num_loss_tokens", "num_sequences", "none"]
Targets = str | Sequence[str]
"""The ends of the names of the layers that have an adapter, or `all-linear`: all but the head."""


class Learner:
    """A model, its optimizer, and the gradient that has come together since the last step."""

    def __init__(self, base: CausalLM, rank: int, alpha: int, seed: int, targets: Targets = "all-linear") -> None:
        """A new LoRA on `base`, which nobody else may use, or all of its weights if the rank is 0.

        Raises ValueError if no layer of `base` is called as in `targets`.
        """
        self._base = base
        self._adapter = lora(base, rank, alpha, seed, targets) if rank else None
        if self._adapter is None:
            base.model.requires_grad_(True)
        whole = self._adapter or base.model
        self._trained = {name: each for name, each in whole.named_parameters() if each.requires_grad}
        self._optimizer = self._new_optimizer()
        self._loss_tokens = 0
        self._sequences = 0

    @property
    def is_lora(self) -> bool:
        """Whether an adapter is trained."""
        return self._adapter is not None

    @property
    def vocabulary(self) -> int:
        """How many ids the model knows."""
        return self._base.vocabulary

    def forward(self, batch: Batch) -> Computed:
        """The loss, and the logprobs of the targets, without a gradient. Raises ValueError for an unknown loss."""
        with torch.no_grad():
            return self._compute(batch, backward=False)

    def forward_backward(self, batch: Batch) -> Computed:
        """The same, and the gradient of the loss, summed over tokens, is added to what the next step uses.

        Raises ValueError also for a loss that is not finite.
        """
        computed = self._compute(batch, backward=True)
        self._loss_tokens += computed.active
        self._sequences += len(batch.data)
        return computed

    def optim_step(self, adam: AdamParams, normalization: Normalization) -> float:
        """One step of AdamW by the gradient so far, which is forgotten then; returns the norm before it is clipped."""
        try:
            self._normalize(normalization)
            norm = self._clip(adam.grad_clip_norm)
            for group in self._optimizer.param_groups:
                group.update(
                    lr=adam.learning_rate, betas=(adam.beta1, adam.beta2), eps=adam.eps, weight_decay=adam.weight_decay
                )
            self._optimizer.step()
        finally:
            self._forget_gradient()
        return norm

    def save(self, folder: Path) -> None:
        """Write weights and moments. Raises FileExistsError if that name was saved before."""
        _create(folder)
        tensors = {f"weight/{name}": each.detach() for name, each in self._trained.items()}
        for name, each in self._trained.items():
            tensors |= {f"{moment}/{name}": value for moment, value in self._optimizer.state[each].items()}
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / STATE)

    def load(self, folder: Path, *, optimizer: bool) -> None:
        """Take back what `save` wrote; without `optimizer` the moments start anew."""
        tensors = load_file(folder / STATE)
        self._optimizer = self._new_optimizer()
        with torch.no_grad():
            for name, each in self._trained.items():
                each.copy_(tensors[f"weight/{name}"])
                if optimizer and f"step/{name}" in tensors:
                    self._optimizer.state[each] = {moment: tensors[f"{moment}/{name}"] for moment in MOMENTS}
        self._forget_gradient()

    def load_adapter(self, folder: Path) -> None:
        """Take the weights of a PEFT adapter of the same rank; the moments start anew. Raises ValueError for others."""
        if self._adapter is None:
            raise ValueError("this model trains all weights: it has no adapter to load into")
        weights = load_file(folder / "adapter_model.safetensors")
        mine = get_peft_model_state_dict(self._adapter)
        if weights.keys() != mine.keys():
            raise ValueError(f"the adapter holds other weights: {', '.join(sorted(weights.keys() ^ mine.keys())[:3])}")
        set_peft_model_state_dict(self._adapter, weights)
        self._optimizer = self._new_optimizer()
        self._forget_gradient()

    def snapshot(self, folder: Path) -> None:
        """Write the weights to sample from, and what a promotion hands out. Raises FileExistsError as `save` does."""
        _create(folder)
        save_file({name: tensor.clone() for name, tensor in self._merged().items()}, folder / SAMPLING_WEIGHTS)
        path = folder / ("model" if self._adapter is None else "adapter")
        (self._adapter or self._base.model).save_pretrained(str(path))
        self._base.tokenizer.save(path)

    def save_adapter(self, folder: Path) -> None:
        """Write the LoRA as PEFT does. Raises FileExistsError as `save` does, ValueError if all weights are trained."""
        if self._adapter is None:
            raise ValueError("this model trains all weights: it has no adapter to save")
        _create(folder)
        self._adapter.save_pretrained(str(folder), save_embedding_layers=False)

    def _compute(self, batch: Batch, *, backward: bool) -> Computed:
        loss = loss_named(batch.loss)
        require_targets(batch.loss, batch.data)
        logprobs: dict[int, Tensor] = {}
        losses: dict[int, Tensor] = {}
        total = 0.0
        for group in of_one_length(batch.data):
            data = [batch.data[i] for i in group]
            rows = self._logprobs(data)
            each = loss(rows, _arrays(data), batch.options)
            summed = (each * _arrays(data)["weights"]).sum()
            value = float(summed.detach())
            if not math.isfinite(value):
                raise ValueError("the loss is not a finite number")
            if backward:
                torch.autograd.backward(summed)
            total += value
            logprobs |= dict(zip(group, rows.detach(), strict=True))
            losses |= dict(zip(group, each.detach(), strict=True))
        order = range(len(batch.data))
        return Computed(total, batch.active(), [logprobs[i] for i in order], [losses[i] for i in order])

    def _logprobs(self, data: Sequence[Datum]) -> Tensor:
        """[n, T] logprobs of the targets, or [n, T, K] where each position has K."""
        inputs = torch.stack([torch.tensor(datum.inputs) for datum in data])
        targets = torch.stack([torch.tensor(datum.targets) for datum in data])
        logits = self._base.model(input_ids=inputs, use_cache=False).logits.float()
        found = torch.log_softmax(logits, dim=2).gather(2, targets.reshape(*targets.shape[:2], -1))
        return found.reshape(targets.shape)

    def _merged(self) -> Mapping[str, Tensor]:
        """All weights by the base model's names, the adapter added to them."""
        if self._adapter is None:
            return self._base.model.state_dict()
        merged: PreTrainedModel = copy.deepcopy(self._adapter).merge_and_unload()
        return merged.state_dict()

    def _new_optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self._trained.values())

    def _normalize(self, normalization: Normalization) -> None:
        count = {"num_loss_tokens": self._loss_tokens, "num_sequences": self._sequences, "none": 1}[normalization]
        for each in self._trained.values():
            if each.grad is not None:
                each.grad.div_(max(count, 1))

    def _clip(self, limit: float) -> float:
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained.values(), limit or math.inf))
        if not math.isfinite(norm):
            raise ValueError(f"the gradient's norm is {norm}")
        return norm

    def _forget_gradient(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self._loss_tokens = self._sequences = 0


def lora(base: CausalLM, rank: int, alpha: int, seed: int, targets: Targets = "all-linear") -> PeftModel:
    """A new adapter on `base`, by default on every linear layer but the head; its weights depend on the seed alone."""
    layers = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=layers, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = cast(PeftModel, get_peft_model(base.model, config))
    adapted.eval()
    return adapted


def of_one_length(data: Sequence[Datum]) -> Iterator[list[int]]:
    """Positions in `data` of sequences that are computed together: of one shape, and of `MOST_TOKENS` at most."""
    by_length = sorted(range(len(data)), key=lambda i: data[i].targets.shape)
    for shape, group in groupby(by_length, key=lambda i: data[i].targets.shape):
        yield from _in_parts(group, max(1, MOST_TOKENS // shape[0]))


def _in_parts(positions: Iterable[int], size: int) -> Iterator[list[int]]:
    whole = list(positions)
    yield from (whole[start : start + size] for start in range(0, len(whole), size))


def _arrays(data: Sequence[Datum]) -> Mapping[str, Tensor]:
    """[n, T] of each array of sequences of one length; [n, T, K] of the weights of K targets."""
    return {name: torch.stack([torch.tensor(datum.arrays[name]) for datum in data]) for name in data[0].arrays}


def _create(folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"a checkpoint {folder.name!r} exists")
    folder.mkdir(parents=True)


def export_folder(snapshot: Path) -> Path:
    """What a promotion of a snapshot hands out: the folder of a PEFT adapter or of a whole model."""
    return next(path for path in (snapshot / "adapter", snapshot / "model") if path.is_dir())
