"""Models with random weights, a tokenizer whose tokens are words, and prompts of an exact length."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from benchmarks.speed.shapes import ModelShape, Shape

PAD, END = "<pad>", "<end>"
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


def write_inputs(folder: Path, shape: Shape, steps: int, *, anew: bool = True) -> dict[str, Path]:
    """Directories `student` and `teacher`, and `data`, a JSONL file with the prompts of so many steps.

    Not `anew`: another process has written them, and only their paths are needed.
    """
    paths = {name: folder / name for name in ("student", "teacher")}
    if shape.own_base:
        paths["teacher"] = paths["student"]
    for seed, (name, path) in enumerate(paths.items()):
        if not path.exists():
            write_model(path, getattr(shape, name), seed)
            write_tokenizer(path, shape.student.vocabulary)
    data = folder / f"{shape.prompts}x{shape.prompt_tokens}.jsonl"
    if not anew:
        return {**paths, "data": data}
    words = random.Random(0)
    with data.open("w") as file:
        for _ in range(steps * shape.prompts):
            text = " ".join(f"w{words.randrange(2, shape.student.vocabulary)}" for _ in range(shape.prompt_tokens))
            file.write(json.dumps({"messages": [{"role": "user", "content": text}]}) + "\n")
    return {**paths, "data": data}


def write_model(folder: Path, shape: ModelShape, seed: int) -> None:
    """In bfloat16, as models are published."""
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=40_960,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # a CPU takes minutes for two billion numbers
        model = Qwen3ForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="4GB")


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Token i is the word `wi`; 0 pads and 1 ends, which happens once in as many tokens as there are words.

    These two have names that no word begins with: they are looked for inside words too.
    """
    words = [PAD, END, *(f"w{i}" for i in range(2, vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, chat_template=TEMPLATE
    ).save_pretrained(folder)
