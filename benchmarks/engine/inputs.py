"""Rows like those of `examples/gsm8k_privileged`, routed, and a tokenizer that splits them as published ones do."""

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

EXAMPLE = Path(__file__).parents[2] / "examples" / "gsm8k_privileged" / "train.jsonl"
TEACHERS = ("sums", "words")
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_rows(path: Path, count: int) -> Path:
    """`count` rows of about 1.1 kB: a question of some 60 tokens, and a privileged prompt of some 150."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(islice(_lines(), count))
    return path


def write_table(path: Path, lines: Path) -> Path:
    """The rows of a file of JSON lines as one Parquet file."""
    with lines.open("rb") as file:
        schema = pa.Table.from_pylist([json.loads(file.readline())]).schema
        file.seek(0)
        with pq.ParquetWriter(path, schema) as writer:
            while batch := [json.loads(line) for line in islice(file, 50_000)]:
                writer.write_table(pa.Table.from_pylist(batch, schema))
    return path


def _lines() -> Iterator[str]:
    rows = [json.loads(line) for line in EXAMPLE.read_text(encoding="utf-8").splitlines()]
    numbers = random.Random(0)
    while True:
        for row in rows:
            text = json.dumps({**row, "teacher": numbers.choice(TEACHERS)})
            yield text.replace("Final: <answer>", f"Final: <answer {numbers.randrange(10**6)}>") + "\n"


def write_tokenizer(folder: Path) -> Path:
    """Byte-level BPE of 4,096 tokens, learned from the examples, with a chat template of several branches."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(islice(_lines(), 256), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    ).save_pretrained(folder)
    return folder
