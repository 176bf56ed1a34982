"""A causal language model of transformers: logits of given ids, and completions sampled token by token.

Nothing here is distillkit's own arithmetic: logits are those of the model's forward, in float32 on the CPU, of one
sequence by itself. So the servers are a reference that is independent of the backends which are tested on them.
"""

import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from distillkit.errors import InputError
from distillkit.records import FinishReason
from distillkit.types import SamplingParams
from distillkit_loopback.hf.sampling import choose
from distillkit_loopback.hf.tokenizer import HFTokenizer, unreadable_message
from distillkit_loopback.sampling_fields import SamplingFields

READING = threading.Lock()
"""Of whoever reads a model: transformers changes what all threads see meanwhile, and two at once had random weights."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion."""

    ids: tuple[int, ...]
    """The id that ended it is the last one."""
    logprobs: tuple[float, ...]
    """Natural log at temperature 1, before top-p and top-k, one an id."""
    finish_reason: FinishReason


@dataclass(slots=True, eq=False)
class CausalLM:
    """A model with its tokenizer. `model` may be wrapped, by PEFT for example: only its forward is called."""

    model: PreTrainedModel
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]
    """Every id that ends a completion: the generation config's and the tokenizer's."""

    @classmethod
    def load(cls, source: str, tokenizer: HFTokenizer | None = None) -> "CausalLM":
        """A directory's or the hub's model, in float32 on the CPU. Raises InputError if it cannot be read.

        `tokenizer`: instead of the tokenizer that lies beside the weights.
        """
        transformers_logging.disable_progress_bar()
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            with READING:
                model: PreTrainedModel = _auto_class(config).from_pretrained(
                    source,
                    dtype=torch.float32,
                    use_safetensors=True,  # the older format is a pickle
                    trust_remote_code=False,
                )
        except (OSError, ValueError) as error:
            raise InputError(unreadable_message("model", source, error)) from error
        model.requires_grad_(False)
        model.eval()
        tokenizer = tokenizer or HFTokenizer.load(source)
        return cls(model, tokenizer, eos_ids_of(model, tokenizer))

    @property
    def vocabulary(self) -> int:
        """How many ids have an embedding."""
        return int(self.model.get_input_embeddings().get_parameter("weight").shape[0])

    @torch.inference_mode()
    def logprobs(self, ids: Sequence[int], start: int = 1) -> Tensor:
        """[n - start, vocabulary] log-softmax of what follows `ids[:start]`, `ids[:start + 1]`, ..., `ids[:n - 1]`.

        `start` is at least 1: nothing predicts the first id.
        """
        logits = self.model(input_ids=torch.tensor([list(ids[:-1])]), use_cache=False).logits
        return torch.log_softmax(logits[0, start - 1 :].float(), dim=1)

    @torch.inference_mode()
    def sample(self, prompt: Sequence[int], seed: int, params: SamplingParams) -> Sample:
        """One completion of at least one token; the same for the same arguments.

        Each token takes one of the seed's uniform numbers, and is chosen by inverse transform.
        """
        uniforms = np.random.Generator(np.random.Philox(key=seed)).random(params.max_tokens, dtype=np.float32)
        cache = DynamicCache(config=self.model.config)
        known = {cache_argument(self.model): cache}
        ids: list[int] = []
        logprobs: list[float] = []
        unread = list(prompt)
        fields = SamplingFields.of(params)
        reason: FinishReason | None = None
        while reason is None:
            logits = self.model(input_ids=torch.tensor([unread]), use_cache=True, **known).logits[0, -1].float()
            index = choose(logits, float(uniforms[len(ids)]), fields, prompt, ids)
            ids.append(index)
            logprobs.append(float(torch.log_softmax(logits, dim=0)[index]))
            unread = [index]
            reason = self._finish_reason(ids, params)
        return Sample(tuple(ids), tuple(logprobs), reason)

    def _finish_reason(self, ids: Sequence[int], params: SamplingParams) -> FinishReason | None:
        if ids[-1] in self.eos_ids or ids[-1] in params.stop_ids:
            return "stop"
        if params.stop and any(stop in self.tokenizer.decode(ids) for stop in params.stop):
            return "stop"
        return "length" if len(ids) == params.max_tokens else None


def _auto_class(config: PreTrainedConfig) -> Any:  # noqa: ANN401 - transformers has no public name for its type
    """The auto class that makes the class named in `architectures`, also of a model with towers; else one for text."""
    made = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.get(config.model_type)
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    named = config.architectures or ()
    return AutoModelForMultimodalLM if made in named or causal is None else AutoModelForCausalLM


def cache_argument(model: PreTrainedModel) -> str:
    """What the model's forward calls its cache: transformers renamed the argument in 5.x."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def eos_ids_of(model: PreTrainedModel, tokenizer: HFTokenizer) -> frozenset[int]:
    """Every id that ends a completion."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    return frozenset([*ids, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])])
