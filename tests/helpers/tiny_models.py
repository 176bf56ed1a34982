"""Real models and tokenizers of transformers, small enough to train in a test: random weights, a token a byte."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined %}"
    "{% if not enable_thinking %}<think></think>{% endif %}{% endif %}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = len(SPECIAL) + 256
EOS = 2
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "eos_token_id": EOS,
    "pad_token_id": EOS,
    "bos_token_id": 1,
}
FAMILIES = {
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SMALL),
    "qwen2": Qwen2Config(**{name: value for name, value in SMALL.items() if name != "head_dim"}),
    "mistral": MistralConfig(**SMALL, sliding_window=None),
    "gemma2": Gemma2Config(**SMALL, final_logit_softcapping=5.0, sliding_window=16),
    "granite": GraniteConfig(**SMALL, logits_scaling=3.0, residual_multiplier=0.5, attention_multiplier=0.2),
    "cohere": CohereConfig(**SMALL, logit_scale=0.25),
}
FAST = tuple(name for name in FAMILIES if name not in ("gemma2", "cohere"))
"""Those that the fast path computes: this gemma2 has a softcap in attention."""


def write_tokenizer(
    folder: Path,
    *,
    swapped: bool = False,
    eos: str = "<|im_end|>",
    template: str = CHATML,
    more_special: Sequence[str] = (),
) -> None:
    """Byte level; `swapped` exchanges the ids of two letters; `more_special` tokens come behind all others."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if swapped:
        a, b = letters.index("a"), letters.index("b")
        letters[a], letters[b] = letters[b], letters[a]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, *more_special])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=eos, chat_template=template)
    fast.save_pretrained(folder)


def write_model(
    folder: Path,
    *,
    family: str = "llama",
    seed: int = 0,
    spread: float = 0.3,
    context: int = 512,
    intermediate: int = SMALL["intermediate_size"],
    head_dim: int | None = None,
    eos: str = "<|im_end|>",
) -> str:
    """A model with weights of standard deviation `spread`, so that its distributions are far from uniform.

    `eos`, one of `SPECIAL`, is what its tokenizer and its configs say that it ends with; the chat template always
    writes `<|im_end|>`. So `<|endoftext|>` makes a model as base models of families such as SmolLM2 are.
    """
    torch.manual_seed(seed)
    config = copy.deepcopy(FAMILIES[family])
    config.max_position_embeddings, config.intermediate_size = context, intermediate
    if head_dim is not None:
        config.head_dim = head_dim
    config.eos_token_id = config.pad_token_id = SPECIAL.index(eos)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or name.endswith("bias"):
                parameter.normal_(0.0, spread)
    model.save_pretrained(folder)
    write_tokenizer(folder, eos=eos)
    return str(folder)
