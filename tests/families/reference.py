"""The reference: transformers' eager float32 forward of one sequence alone, without padding and cache.

Models are loaded by the class that their config.json names, and adapters by PEFT, as anyone would: nothing of this
project is used.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import PreTrainedModel

Sample = dict[str, Any]
"""A line of samples.jsonl."""


def load_reference(folder: Path) -> PreTrainedModel:
    """The model of a directory, in float32 on the CPU."""
    (name,) = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]
    model: PreTrainedModel = getattr(transformers, name).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval()


@contextmanager
def with_adapter(base: PreTrainedModel, adapter: Path) -> Iterator[torch.nn.Module]:
    """The base with the adapter of a directory on it; without it again afterwards."""
    model = PeftModel.from_pretrained(base, str(adapter))
    try:
        yield model.eval()
    finally:
        model.unload()


@torch.inference_mode()
def largest_distance(model: torch.nn.Module, tokenizer: Any, samples: Sequence[Sample], teacher: str | None) -> float:
    """Between the logprobs of samples, of a teacher or of the student, and those of `model`: nats, of the worst token.

    NaN where nothing was compared.
    """
    worst = [float("nan")]
    for sample in samples:
        if teacher is None:
            prompt, recorded = sample["prompt"], sample["student_logprobs"]
        else:
            prompt, recorded = sample["teacher_prompts"][teacher], sample["teacher_logprobs"][teacher]
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        whole = torch.tensor([[*ids, *sample["token_ids"]]])
        logits = model(input_ids=whole, use_cache=False).logits[0, len(ids) - 1 : -1].float()
        expected = torch.log_softmax(logits, dim=-1).gather(1, whole[0, len(ids) :, None])[:, 0]
        worst.append(float((torch.tensor(recorded) - expected).abs().max()))
    return max(worst[1:], default=worst[0])
