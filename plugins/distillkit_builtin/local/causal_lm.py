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
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.utils import logging as transformers_logging

from distillkit.arrays import IntArray
from distillkit.errors import InputError
from distillkit_builtin.hf_tokenizer import unavailable
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model_config import declared_text_config
from distillkit_builtin.local.quantization import prepare_quantized
from distillkit_builtin.local.token_logprobs import token_logprobs

if TYPE_CHECKING:
    from peft import PeftModel


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
        self.backbone: torch.nn.Module = model.base_model
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
        """Read a model's weights. Raises InputError if they cannot be read, or are not safetensors."""
        transformers_logging.disable_progress_bar()
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=weights_dtype,
                use_safetensors=True,  # the older format is a pickle
                trust_remote_code=False,
            )
        except (OSError, ValueError) as error:
            raise InputError(unavailable("model", source, error)) from error
        prepare_quantized(model, source)
        model.requires_grad_(False)
        model.eval()
        torch.nn.Module.to(model, device.device)
        causal_lm = cls(model, device, dtype)
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
        hidden: Tensor = out.last_hidden_state
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
    def head_is_frozen(self) -> bool:
        """Whether nothing inside the head is trained."""
        return not any(parameter.requires_grad for parameter in self._head.parameters())

    @torch.no_grad()
    def require_known_head(self) -> None:
        """Raise InputError for an architecture whose logits are not those that `head` computes."""
        ids = torch.arange(1, 5, device=self.device.device)[None]
        ours = self.head(self.hidden_states(ids))
        theirs = self.model(input_ids=ids, use_cache=False).logits
        close = 1e-4 if ours.dtype == torch.float32 else 1e-2
        if not torch.allclose(ours.float(), theirs.float(), rtol=close, atol=close):
            raise InputError(
                f"{type(self.model).__name__} makes its logits in a way that the local backend does not know; please "
                "report the architecture, and serve this model over HTTP meanwhile"
            )

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The frozen base, whatever the student has learnt."""
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
