"""Tiny models of a family on disk: random weights that make distributions far from uniform and from certain."""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from helpers.tiny_models import write_tokenizer
from torch import Tensor, nn

from families.family import Family

LOGITS = 1.5
"""Standard deviation of the logits over the vocabulary, about."""
EMBEDDINGS = 0.3
"""Standard deviation of what the first layer reads: below what layers add to it, so that context matters."""
GAIN = 1.3
"""Of a linear layer: how much larger its outputs are than its inputs, about."""
AS_THE_FAMILY_STARTS_THEM = re.compile(
    r"A_log|dt_proj|\.D$|time_(decay|first|mix)|recurrent_param|[if]gate_preact\.bias|decay|slope"
)
"""Parameters whose size says how long a state lasts: drawn as others are, states would explode or vanish."""


def write_family(family: Family, folder: Path, *, seed: int = 0) -> str:
    """Writes model, config, tokenizer and chat template; returns the directory."""
    tiny_model(family, seed=seed).save_pretrained(folder)
    if family.architecture is not None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["architectures"] = [family.architecture]
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    write_tokenizer(folder)
    return str(folder)


def tiny_model(family: Family, *, seed: int = 0) -> Any:
    """A model of the family in float32 on the CPU, without dropout; the same for a seed wherever it is made."""
    config = family.config()
    # Eager attention: what a number is measured against.
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, family.class_name)(config).float().eval()
        text = config.get_text_config()
        scale = getattr(text, "embedding_multiplier", None) or getattr(text, "scale_emb", None) or 1.0
        spread(model.named_parameters(), embeddings=EMBEDDINGS / scale)
        spread_tables(model)
        settle_logits(model, torch.randint(3, 259, (2, 48)))
    return model


def spread(parameters: Iterable[tuple[str, Tensor]], *, embeddings: float) -> None:
    """Draws weights anew by their fan-in, since the usual 0.02 leaves layers this narrow next to nothing to say."""
    with torch.no_grad():
        for name, parameter in parameters:
            if AS_THE_FAMILY_STARTS_THEM.search(name):
                continue
            if name.endswith("dt_bias"):
                parameter.copy_(lasting_steps(parameter))
                continue
            if parameter.dim() < 2:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            elif "embed" in name:
                parameter.normal_(0.0, embeddings)
            else:
                parameter.normal_(0.0, GAIN / fan_in(parameter) ** 0.5)


def lasting_steps(bias: Tensor) -> Tensor:
    """Biases of time steps between 0.001 and 0.1, as Mamba's are drawn: a state lasts for many tokens.

    Several families start them as 1: of a state little more than the last token is left then, which a norm blows up
    where that token's key and query happen to stand at a right angle, rounding with it.
    """
    steps = torch.exp(torch.empty_like(bias).uniform_(math.log(0.001), math.log(0.1)))
    return steps.expm1().log()


def spread_tables(model: transformers.PreTrainedModel) -> None:
    """Gives each token experts of its own, where a table (vocabulary, experts per token) says which: it starts as 0."""
    for name, table in model.named_buffers():
        if name.endswith("tid2eid"):
            experts = model.config.get_text_config().n_routed_experts
            table.copy_(torch.rand(table.shape[0], experts).argsort(-1)[:, : table.shape[1]])


def fan_in(weight: Tensor) -> int:
    """How many numbers each output of a linear layer (out, in), convolution or stack of experts is a sum of."""
    experts = weight.dim() == 3 and weight.shape[1] > 1
    return weight.shape[2] if experts else weight[0].numel()


def settle_logits(model: nn.Module, ids: Tensor) -> None:
    """Scales the head, tied or not, until logits (batch, length, vocabulary) of these ids have the spread `LOGITS`.

    Several times, since softcaps bend what a head gives, and a tied head changes what is read as well.
    """
    models = (part for part in model.modules() if isinstance(part, transformers.PreTrainedModel))
    head = next(head for part in models if (head := part.get_output_embeddings()) is not None)
    with torch.no_grad():
        for _ in range(4):
            factor = min(4.0, max(0.25, LOGITS / logit_spread(model, ids)))
            for parameter in head.parameters():
                parameter.mul_(factor)


@torch.no_grad()
def logit_spread(model: nn.Module, ids: Tensor) -> float:
    """Standard deviation of the logits over the vocabulary, the mean over all positions."""
    return float(logits(model, ids).std(-1).mean())


@torch.no_grad()
def logits(model: nn.Module, ids: Tensor) -> Tensor:
    """Of ids (batch, length): (batch, length, vocabulary) in float32, without a cache."""
    return reader_of_text(model)(input_ids=ids, use_cache=False).logits.float()


def reader_of_text(model: Any) -> Any:
    """The module that gives logits for token ids: the model, but for one whose own forward fails on any input.

    Llama 4's wrapper asks its language model's output for `image_outputs`, which that has not (transformers 5.24).
    """
    return model.language_model if model.config.model_type == "llama4" else model
