"""A causal language model of transformers: its backbone, its head, and what it computes of given responses."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from distillkit.arrays import IntArray
from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.load_weights import load_weights, require_finite
from distillkit_builtin.local.model_class import backbone
from distillkit_builtin.local.model_config import declared_text_config
from distillkit_builtin.local.quantization import computing_first, prepare_quantized
from distillkit_builtin.local.token_logprobs import token_logprobs
from distillkit_builtin.model_source import resolve_model

if TYPE_CHECKING:
    from peft import PeftModel

NOT_CAUSAL = 0.05
"""The share of their norm by which hidden states may change with later tokens: rounding in bfloat16, and no more."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptAndResponse:
    """One prompt [P] and its response [R]."""

    prompt_ids: IntArray
    response_ids: IntArray

    def __len__(self) -> int:
        """Tokens of both: P + R."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True, slots=True)
class ResponseStates:
    """What the head reads of some responses, end to end: n = R_1 + R_2 + ..."""

    hidden: Tensor
    """[n, hidden]: the last hidden states that predict the responses' tokens."""
    ids: Tensor
    """[n]: those tokens."""


class CausalLM:
    """A model on a device. `adapter` is the student's LoRA, once it has one: without it this is the teacher."""

    def __init__(self, model: PreTrainedModel, device: Device, dtype: torch.dtype) -> None:
        """`dtype` is what is computed in; the weights may be float32 all the same."""
        self.model = model
        self.device = device
        self.dtype = dtype
        self.adapter: PeftModel | None = None
        self.backbone = backbone(model)
        # transformers renamed the argument in 5.x, and warns at every use of the old name.
        known = inspect.signature(self.backbone.forward).parameters
        self.cache_argument = "cache" if "cache" in known else "past_key_values"
        self._cache_config = declared_text_config(model.config)
        config = model.config.get_text_config()
        self._softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self._scale: float = getattr(config, "logit_scale", None) or 1.0 / (
            getattr(config, "logits_scaling", None) or 1.0
        )

    @classmethod
    def load(cls, source: str, device: Device, dtype: torch.dtype, weights_dtype: torch.dtype) -> "CausalLM":
        """Read a model's weights, adapters merged. Raises InputError if they cannot be read or computed with."""
        resolved = resolve_model(source)
        model = load_weights(resolved, weights_dtype)
        prepare_quantized(model, source)
        model.requires_grad_(False)
        model.eval()
        torch.nn.Module.to(model, device.device)
        require_finite(model, resolved.base)
        causal_lm = cls(model, device, dtype)
        with computing_first(model, source):
            causal_lm.require_known_head()
        return causal_lm

    def new_cache(self) -> DynamicCache:
        """An empty cache for keys and values; layers that attend to a window keep no more than that."""
        return DynamicCache(config=self._cache_config)

    def hidden_states(self, ids: Tensor, cache: DynamicCache | None = None, **options: Tensor) -> Tensor:
        """The last hidden states [batch, length, hidden] of `ids` [batch, length], behind what `cache` holds.

        `options` are the backbone's own: an attention mask, position ids.
        """
        past = {} if cache is None else {self.cache_argument: cache}
        out = self.backbone(input_ids=ids, use_cache=cache is not None, **past, **options)
        hidden: Tensor | None = getattr(out, "last_hidden_state", None)
        if hidden is None:
            raise InputError(
                f"the local backend finds no hidden states of {type(self.model).__name__}; please report the "
                "architecture, and serve this model over HTTP meanwhile"
            )
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, hidden] to logits [n, vocabulary], as the model's own forward computes them."""
        logits: Tensor = self._head(hidden) * self._scale if self._scale != 1.0 else self._head(hidden)
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    @property
    def _head(self) -> torch.nn.Module:
        """As it stands now: an adapter may have put a layer of its own in its place."""
        head: torch.nn.Module = self.model.get_output_embeddings()
        return head

    @property
    def trained_head(self) -> tuple[torch.nn.Parameter, ...]:
        """What is trained inside the head; of sharded weights as they are while the model computes."""
        return tuple(parameter for parameter in self._head.parameters() if parameter.requires_grad)

    @property
    def head_is_frozen(self) -> bool:
        """Whether nothing inside the head is trained."""
        return not self.trained_head

    @torch.no_grad()
    def require_known_head(self) -> None:
        """Raise InputError unless the model is causal, its numbers are finite, and `head` computes its logits."""
        name = f"{type(self.model).__name__} ({self.model.name_or_path})"
        ids = torch.arange(1, 5, device=self.device.device)[None]
        hidden = self.hidden_states(ids)
        ours = self.head(hidden)
        theirs = self.model(input_ids=ids, use_cache=False).logits
        if not (ours.isfinite().all() and theirs.isfinite().all()):
            raise InputError(
                f"{name}: its hidden states or logits are not finite, though all its weights are. In float16 large "
                "numbers overflow: take bfloat16 or float32; in those, something is wrong with the weights"
            )
        self._require_causal(name, ids, hidden)
        close = 1e-4 if ours.dtype == torch.float32 else 1e-2
        if not torch.allclose(ours.float(), theirs.float(), rtol=close, atol=close):
            raise InputError(
                f"{type(self.model).__name__} makes its logits in a way that the local backend does not know; please "
                "report the architecture, and serve this model over HTTP meanwhile"
            )

    def _require_causal(self, name: str, ids: Tensor, hidden: Tensor) -> None:
        """Raise InputError if hidden states [1, 4, hidden] of `ids` depend on later tokens."""
        others = torch.cat([ids[:, :2], ids[:, 2:] + 2], dim=1)
        first = hidden[:, :2].float()
        if (self.hidden_states(others)[:, :2].float() - first).norm() > NOT_CAUSAL * first.norm():
            raise InputError(
                f"{name} reads in both directions: what it computes of a token depends on those behind it, so it can "
                "neither sample nor score next tokens. Encoders such as BERT do; choose a causal language model"
            )

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The frozen base, whatever the student has learned."""
        if self.adapter is None:
            yield
            return
        with self.adapter.disable_adapter():
            yield

    def response_states(self, items: Sequence[PromptAndResponse], prefix: DynamicCache | None = None) -> ResponseStates:
        """What the head reads of the items' responses; with gradient if enabled.

        Sequences are padded on the right: causal attention never looks there, so no mask is needed. `prefix` holds
        keys and values of what stands before the items' prompts, a row an item.
        """
        device = self.device.device
        rows = [torch.from_numpy(np.concatenate([item.prompt_ids, item.response_ids])) for item in items]
        ids = pad_sequence(rows, batch_first=True).to(device)
        hidden = self.hidden_states(ids, prefix)
        predicting = [(i, t) for i, item in enumerate(items) for t in range(len(item.prompt_ids) - 1, len(item) - 1)]
        index = torch.tensor(predicting, device=device)
        row, position = index[:, 0], index[:, 1]
        return ResponseStates(hidden[row, position], ids[row, position + 1])

    def logprobs(self, states: ResponseStates) -> Tensor:
        """Float32 logprobs [n] of the states' ids; with gradient if enabled."""
        return token_logprobs(self.head, states.hidden, states.ids, frozen_head=self.head_is_frozen)

    def response_logprobs(self, items: Sequence[PromptAndResponse]) -> Tensor:
        """Float32 logprobs of the items' responses, end to end [R_1 + R_2 + ...]; with gradient if enabled."""
        return self.logprobs(self.response_states(items))
