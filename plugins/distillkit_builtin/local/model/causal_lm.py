"""A causal language model of transformers: its backbone, its head, and what it computes of given responses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache

from distillkit.arrays import IntArray
from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.batching import ONE_LENGTH, Batching
from distillkit_builtin.local.model.head_form import HeadForm
from distillkit_builtin.local.model.load_weights import load_weights, require_finite
from distillkit_builtin.local.model.model_cache import CacheKind
from distillkit_builtin.local.model.step_limits import keep_step_limits
from distillkit_builtin.local.model.token_logprobs import token_logprobs
from distillkit_builtin.local.model_files.model_class import backbone, computable, language_model
from distillkit_builtin.local.model_files.model_config import declared_text_config
from distillkit_builtin.local.model_files.quantization import computing_first, holds_numbers, prepare_quantized
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
        keep_step_limits(model)
        self.model = model
        self.device = device
        self.dtype = dtype
        self.adapter: PeftModel | None = None
        self.backbone = backbone(model)
        self.cache_kind = CacheKind.of(model)
        self._language_model = language_model(model)
        self._cache_config = declared_text_config(model.config)
        self.head_form = HeadForm.declared(model.config.get_text_config(decoder=True))
        self.batching: Batching = ONE_LENGTH
        """What was proved of the model (`sequence_proof.proved`); until then no two lengths are computed together."""

    @classmethod
    def load(cls, source: str, device: Device, dtype: torch.dtype, weights_dtype: torch.dtype) -> "CausalLM":
        """Read a model's weights, adapters merged. Raises InputError if they cannot be read or computed with."""
        resolved = resolve_model(source)
        model = load_weights(resolved, weights_dtype, device.device)
        prepare_quantized(model, source)
        model.requires_grad_(False)
        model.eval()
        torch.nn.Module.to(model, device.device)
        require_finite(model, resolved.base)
        causal_lm = cls(model, device, dtype)
        with computing_first(model, source), computable(model):
            causal_lm.require_known_head()
        return causal_lm

    def of_copy(self, model: PreTrainedModel) -> "CausalLM":
        """A copy of this one's model, of which the same was proved."""
        copied = CausalLM(model, self.device, self.dtype)
        copied.head_form, copied.batching = self.head_form, self.batching
        return copied

    def new_cache(self) -> DynamicCache:
        """An empty cache for keys, values and states; layers that attend to a window keep no more than that."""
        return self.cache_kind.new(self._cache_config)

    def hidden_states(self, ids: Tensor, cache: Cache | None = None, **options: Tensor) -> Tensor:
        """The last hidden states [batch, length, hidden] of `ids` [batch, length], behind what `cache` holds.

        `options` are the backbone's own: an attention mask, position ids.
        """
        past = {} if cache is None else {self.cache_kind.argument: cache}
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
        return self.head_form.logits(self._given(hidden))

    def _given(self, hidden: Tensor) -> Tensor:
        """What the layer of the head gives, which reads its own format, unless autocast chooses one.

        Mamba keeps float32 until there; others have it there alone.
        """
        weight = next(self._head.parameters(), None)
        autocasts = not hidden.is_meta and torch.is_autocast_enabled(hidden.device.type)  # never without data
        if weight is not None and holds_numbers(weight) and not autocasts:
            hidden = hidden.to(weight.dtype)
        given: Tensor = self._head(hidden)
        return given

    @property
    def _head(self) -> torch.nn.Module:
        """As it stands now: an adapter may have put a layer of its own in its place."""
        head: torch.nn.Module = self._language_model.get_output_embeddings()
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
        """Find the form of the head: what makes the model's own logits of what the head gives.

        Raises:
            InputError: unless a form does, the model is causal, and its numbers are finite.
        """
        name = f"{type(self.model).__name__} ({self.model.name_or_path})"
        ids = torch.arange(1, 5, device=self.device.device)[None]
        hidden = self.hidden_states(ids)
        given = self._given(hidden)
        theirs = self._language_model(input_ids=ids, use_cache=False).logits
        if not (given.isfinite().all() and theirs.isfinite().all()):
            raise InputError(
                f"{name}: its hidden states or logits are not finite, though all its weights are. In float16 large "
                "numbers overflow: take bfloat16 or float32; in those, something is wrong with the weights"
            )
        self._require_causal(name, ids, hidden)
        self.head_form = HeadForm.closest(self.model.config.get_text_config(decoder=True), given, theirs)
        ours = self.head_form.logits(given).float()
        close = 1e-4 if given.dtype == torch.float32 else 1e-2
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs.float(), rtol=close, atol=close):
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

    def response_states(
        self, items: Sequence[PromptAndResponse], prefix: DynamicCache | None = None, shared: int = 0
    ) -> ResponseStates:
        """What the head reads of the items' responses; with gradient if enabled.

        Sequences are padded on the right: what is causal never looks there, so no mask is needed. `prefix` holds the
        `shared` tokens that stand before the items' prompts, a row an item.
        """
        device = self.device.device
        rows = [torch.from_numpy(np.concatenate([item.prompt_ids, item.response_ids])) for item in items]
        ids = pad_sequence(rows, batch_first=True).to(device)
        places = {}
        if prefix is not None:  # not every cache of recurrent layers knows how long what it has read is
            places["position_ids"] = torch.arange(shared, shared + ids.shape[1], device=device).expand_as(ids)
        hidden = self.hidden_states(ids, prefix, **places)
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
