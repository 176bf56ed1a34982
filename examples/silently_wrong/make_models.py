"""Write small models with random weights and a token a byte into `runs/models`: one that is right, and wrong ones.

A run needs no download and takes seconds with them. What they write means nothing.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

FOLDER = Path("runs/models")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SPREAD, APART, ENDS = 0.3, 0.03, 2.0
"""Standard deviations of the weights, and of what the teacher's differ from the student's; how much more often than
another token the turn's end is written."""


def tokenizer(folder: Path, *, end: str = "<|im_end|>", swapped: bool = False) -> None:
    """A token a byte; `end` is the EOS token, `swapped` exchanges the ids of two letters."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    if swapped:
        a, b = letters.index("a"), letters.index("b")
        letters[a], letters[b] = letters[b], letters[a]
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *letters])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end, pad_token=end, chat_template=TEMPLATE)
    fast.save_pretrained(folder)


def llama(end: str) -> LlamaForCausalLM:
    """Two layers, the same weights each time."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": SPECIAL.index(end), "pad_token_id": SPECIAL.index(end), "bos_token_id": 1}
    model = spread(LlamaForCausalLM(LlamaConfig(vocab_size=259, max_position_embeddings=512, **sizes, **ids)), SPREAD)
    model.lm_head.weight.data[SPECIAL.index(end)] *= ENDS
    return model


def gpt2() -> GPT2LMHeadModel:
    """A model whose config has dropout, as GPT-2's."""
    torch.manual_seed(0)
    ids = {"eos_token_id": 2, "pad_token_id": 2, "bos_token_id": 1}
    return spread(
        GPT2LMHeadModel(GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=512, **ids)), SPREAD
    )


def spread(model: torch.nn.Module, by: float) -> torch.nn.Module:
    """The model with normal noise of this standard deviation added to its matrices."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter), alpha=by)
    return model


def main() -> None:
    """Write all of them."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    logging.disable_progress_bar()
    for name, model, options in (
        ("student", llama("<|im_end|>"), {}),
        ("teacher", spread(llama("<|im_end|>"), APART), {}),
        ("base", llama("<|endoftext|>"), {"end": "<|endoftext|>"}),
        ("other_ids", llama("<|im_end|>"), {"swapped": True}),
        ("dropout", gpt2(), {}),
    ):
        model.save_pretrained(FOLDER / name)
        tokenizer(FOLDER / name, **options)
    settings = FOLDER / "student" / "generation_config.json"  # what a server fills in where a request leaves it out
    settings.write_text(json.dumps({"do_sample": True, "top_k": 1, "eos_token_id": 2}), encoding="utf-8")


if __name__ == "__main__":
    main()
