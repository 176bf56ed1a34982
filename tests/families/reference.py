"""The reference: transformers' eager float32 forward of one sequence alone, without padding and cache.

Models are loaded by the class that their config.json names, and adapters by PEFT, as anyone would: nothing of this
project is used.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import PreTrainedModel

from families.bounds import EXACT
from families.tiny import reader_of_text

Sample = dict[str, Any]
"""A line of samples.jsonl."""


def load_reference(folder: Path) -> PreTrainedModel:
    """The model of a directory, in float32 on the CPU."""
    (name,) = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    kind = getattr(transformers, name, transformers.AutoModelForCausalLM)  # a few name code that came with the model
    model: PreTrainedModel = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval()


@contextmanager
def with_adapter(base: PreTrainedModel, adapter: Path) -> Iterator[PreTrainedModel]:
    """The base with the adapter of a directory on it; without it again afterwards."""
    model = PeftModel.from_pretrained(base, str(adapter))
    try:
        yield model.eval().get_base_model()
    finally:
        model.unload()


@dataclass(frozen=True, slots=True)
class Distance:
    """Between recorded logprobs and a model's, in nats, of the worst token; NaN where nothing was compared."""

    nats: float
    rounding: float = 0.0
    """How far the reference itself is from what it gives in float64; 0 where that was of no interest."""


def distance(model: PreTrainedModel, tokenizer: Any, samples: Sequence[Sample], teacher: str | None) -> Distance:
    """Of the logprobs of a teacher, or of the student, in `samples`."""
    nats = largest_difference(model, tokenizer, samples, teacher)
    if nats <= EXACT:
        return Distance(nats)
    precise = copy.deepcopy(model).double()
    differences = [
        _logprobs(model, tokenizer, sample, teacher)[1] - _logprobs(precise, tokenizer, sample, teacher)[1]
        for sample in samples
    ]
    return Distance(nats, max((float(each.abs().max()) for each in differences), default=0.0))


def largest_difference(model: PreTrainedModel, tokenizer: Any, samples: Sequence[Sample], teacher: str | None) -> float:
    """In nats; NaN where nothing was compared."""
    pairs = [_logprobs(model, tokenizer, sample, teacher) for sample in samples]
    return max((float((recorded - own).abs().max()) for recorded, own in pairs), default=float("nan"))


@torch.inference_mode()
def _logprobs(
    model: PreTrainedModel, tokenizer: Any, sample: Sample, teacher: str | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """What was recorded of each token of a completion, and what `model` gives it."""
    if teacher is None:
        prompt, recorded = sample["prompt"], sample["student_logprobs"]
    else:
        prompt, recorded = sample["teacher_prompts"][teacher], sample["teacher_logprobs"][teacher]
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = torch.tensor([[*ids, *sample["token_ids"]]])
    logits = reader_of_text(model)(input_ids=whole, use_cache=False).logits[0, len(ids) - 1 : -1]
    own = torch.log_softmax(logits.double(), dim=-1).gather(1, whole[0, len(ids) :, None])[:, 0]
    return torch.tensor(recorded, dtype=torch.float64), own
