"""One model of a trainer: the local backend's policy and trainer behind the operations of the SDK."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from pydantic import JsonValue
from safetensors.torch import load_file, save_file

from distillkit.records import Batch, Datum
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.export import export
from distillkit_builtin.local.policy import Policy
from distillkit_builtin.local.sampling_copy import SamplingCopy
from distillkit_builtin.local.trainer import OptimizerOptions, Trainer
from distillkit_loopback.fireworks.datums import Noting, WireBatch, forward_loss, to_batch
from distillkit_loopback.transport.messages import Body

SAMPLING_WEIGHTS = "sampling.safetensors"
"""The weights that a deployment loads, adapters merged."""
PLAIN = OptimizerOptions(
    learning_rate=0.0,
    schedule="constant_with_warmup",
    warmup_steps=0,
    total_steps=1,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    grad_clip_norm=0.0,
    micro_batch_tokens=8192,
    seed=0,
)
"""Every step brings its own."""


class AdamParams(Body):
    """How one step moves the weights."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0


Normalization = Literal["num_loss_tokens", "num_sequences", "none"]


class Learner:
    """A policy, its optimizer, and the gradient that has come together since the last step."""

    def __init__(self, network: CausalLM, tokenizer: HFTokenizer, rank: int, alpha: int, seed: int) -> None:
        """A new LoRA on `network`, or all of its weights if the rank is 0."""
        self._tokenizer = tokenizer
        self._policy = Policy.lora(network, rank, alpha, 0.0, seed) if rank else Policy.full(network)
        self._sampling_copy = SamplingCopy(self._policy.causal_lm)
        self._trainer = Trainer(self._policy, PLAIN)
        self._vocabulary = network.model.get_input_embeddings().get_parameter("weight").shape[0]
        self._loss_tokens = 0
        self._sequences = 0

    @property
    def is_lora(self) -> bool:
        """Whether an adapter is trained."""
        return self._policy.causal_lm.adapter is not None

    def forward(self, wire: WireBatch) -> JsonValue:
        """The loss and the logprobs of the targets; no gradient comes of it."""
        batch, noting = to_batch(wire)
        self._require_known_ids(batch.datums)
        total = forward_loss(self._policy, batch, noting, PLAIN.micro_batch_tokens)
        return _output(total, _active(batch, wire), noting)

    def forward_backward(self, wire: WireBatch) -> JsonValue:
        """Add the gradient of the loss, summed over tokens; answer with the logprobs of the targets."""
        batch, noting = to_batch(wire)
        self._require_known_ids(batch.datums)
        total, active = self._trainer.accumulate_gradient(batch), _active(batch, wire)
        self._loss_tokens += active
        self._sequences += len(batch.datums)
        return _output(total, active, noting)

    def optim_step(self, adam: AdamParams, normalization: Normalization) -> JsonValue:
        """One step of AdamW by the gradient so far, which is forgotten then."""
        trainer = self._trainer
        self._normalize(normalization)
        for group in trainer.optimizer.param_groups:
            group.update(
                lr=adam.learning_rate, betas=(adam.beta1, adam.beta2), eps=adam.eps, weight_decay=adam.weight_decay
            )
        trainer.options = replace(PLAIN, grad_clip_norm=adam.grad_clip_norm)
        try:
            norm = trainer.apply_gradient()["train/grad_norm"]
        finally:
            self._forget_gradient()
        return {"metrics": {"optim/lr": adam.learning_rate, "optim/grad_norm": norm}}

    def save(self, folder: Path) -> None:
        """Weights and moments. Raises FileExistsError if that name was saved before."""
        _new(folder)
        self._trainer.save(folder)

    def load(self, folder: Path, *, optimizer: bool) -> None:
        """What `save` wrote; without `optimizer` the moments start anew."""
        self._trainer.load(folder)
        if not optimizer:
            self._trainer = Trainer(self._policy, PLAIN)
        self._forget_gradient()

    def load_adapter(self, folder: Path) -> None:
        """The weights of a PEFT adapter of the same rank; the moments start anew."""
        if self._policy.causal_lm.adapter is None:
            raise ValueError("this model trains all weights: it has no adapter to load into")
        weights = load_file(folder / "adapter_model.safetensors")
        mine = get_peft_model_state_dict(self._policy.causal_lm.adapter)
        if weights.keys() != mine.keys():
            raise ValueError(f"the adapter holds other weights: {', '.join(sorted(weights.keys() ^ mine.keys())[:3])}")
        set_peft_model_state_dict(self._policy.causal_lm.adapter, weights)
        self._trainer = Trainer(self._policy, PLAIN)
        self._forget_gradient()

    def snapshot(self, folder: Path, base: str) -> None:
        """The weights to sample from, and what a promotion hands out. Raises FileExistsError as `save` does."""
        _new(folder)
        self._sampling_copy.refresh()
        tensors = {name: tensor.clone() for name, tensor in self._sampling_copy.causal_lm.model.state_dict().items()}
        save_file(tensors, folder / SAMPLING_WEIGHTS)
        export(self._policy, self._tokenizer, folder, base)

    def _normalize(self, normalization: Normalization) -> None:
        count = {"num_loss_tokens": self._loss_tokens, "num_sequences": self._sequences, "none": 1}[normalization]
        for parameter in self._policy.trained.values():
            if parameter.grad is not None:
                parameter.grad.div_(max(count, 1))

    def _forget_gradient(self) -> None:
        self._trainer.optimizer.zero_grad(set_to_none=True)
        self._loss_tokens = self._sequences = 0

    def _require_known_ids(self, datums: tuple[Datum, ...]) -> None:
        for datum in datums:
            ids = np.concatenate([datum.prompt_ids, datum.response_ids])
            if ids.min() < 0 or ids.max() >= self._vocabulary:
                raise ValueError(f"a token id is not in the vocabulary of {self._vocabulary}")


def _active(batch: Batch, wire: WireBatch) -> int:
    """The tokens that count for `num_loss_tokens`: those with an advantage, or with a weight."""
    name = "advantages" if wire.loss_fn == "importance_sampling" else "weights"
    return sum(int(np.count_nonzero(datum.inputs[name])) for datum in batch.datums)


def _output(total: float, active: int, noting: Noting) -> JsonValue:
    return {
        "loss_fn_output_type": "TensorDictLossReturn",
        "loss_fn_outputs": noting.outputs(),
        "metrics": {"loss:sum": total, "active_tokens:sum": float(active)},
    }


def _new(folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"a checkpoint {folder.name!r} exists")
    folder.mkdir(parents=True)


def exported(snapshot: Path) -> Path:
    """What a promotion of a snapshot hands out: a PEFT adapter or a whole model."""
    return next(path for path in (snapshot / "adapter", snapshot / "model") if path.is_dir())
