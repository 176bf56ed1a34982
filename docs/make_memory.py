"""Write the tables of docs/recipes/memory.md: what `distillkit check --device` reckons by model size.

    python docs/make_memory.py

Models are directories with a config and empty weights of the right names and shapes: `check` reads headers alone, so
the files are sparse and take no room. A test makes the first row and compares.
"""

import json
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from distillkit import Registry, RunConfig
from distillkit.preflight.known_devices import planned_device
from distillkit.preflight.prepared_run import prepare_run

PAGE = Path(__file__).parent / "recipes" / "memory.md"
START, END = "<!-- made by docs/make_memory.py -->\n", "<!-- end -->\n"
GIB = 2**30
CARD = "10000gb"
"""Larger than all: on a card where a run does not fit, parts of it are halved until it does."""
PROMPT, COMPLETION, PROMPTS, COMPLETIONS = 256, 1024, 32, 4
VOCABULARY = 151_936


@dataclass(frozen=True)
class Size:
    """A decoder of the Qwen3 family, as its config.json on the hub has it."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    tied: bool

    def config(self) -> Qwen3Config:
        """As published, but for the ids of the tokenizer that is written here."""
        return Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=self.hidden,
            intermediate_size=self.ffn,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=8,
            head_dim=128,
            max_position_embeddings=40_960,
            tie_word_embeddings=self.tied,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
            architectures=["Qwen3ForCausalLM"],
            dtype="bfloat16",
        )


SIZES = {
    "0.6B": Size(1024, 3072, 28, 16, tied=True),
    "1.7B": Size(2048, 6144, 28, 16, tied=True),
    "4B": Size(2560, 9728, 36, 32, tied=True),
    "8B": Size(4096, 12_288, 36, 32, tied=False),
    "14B": Size(5120, 17_408, 40, 40, tied=False),
    "32B": Size(5120, 25_600, 64, 64, tied=False),
}
WAYS: dict[str, dict[str, Any]] = {
    "LoRA, rank 16": {"sampling_weights": "merged"},
    "LoRA, one copy": {"sampling_weights": "adapter"},
    "the same, small": {
        "sampling_weights": "adapter",
        "gradient_checkpointing": True,
        "micro_batch_tokens": 4096,
        "sample_batch_size": 16,
    },
    "all weights": {"lora_rank": 0},
    "all weights, checkpointing": {"lora_rank": 0, "gradient_checkpointing": True},
}


def page() -> str:
    """The whole page, with new tables."""
    written = PAGE.read_text(encoding="utf-8")
    before, _, rest = written.partition(START)
    _, _, after = rest.partition(END)
    with tempfile.TemporaryDirectory() as folder:
        table = "\n".join(lines(Path(folder)))
    return f"{before}{START}{table}\n{END}{after}"


def lines(folder: Path) -> Iterator[str]:
    """A row a size: the teacher alone, then the student by each way of training."""
    yield f"| Qwen3 | weights | {' | '.join(WAYS)} |"
    yield f"|---|{'---|' * (1 + len(WAYS))}"
    for name in SIZES:
        yield line(folder, name)


def line(folder: Path, name: str) -> str:
    """The row of one size, in GiB."""
    model, teacher = folder / name, folder / "teacher"
    write(model, SIZES[name])
    if not teacher.exists():
        write(teacher, SIZES["0.6B"])
    found = [peak(model, teacher, options) for options in WAYS.values()]
    weights = (model / "model.safetensors").stat().st_size
    return f"| {name} | {weights / GIB:.1f} | {' | '.join(f'{value / GIB:.1f}' for value in found)} |"


def peak(model: Path, teacher: Path, options: dict[str, Any]) -> int:
    """Bytes at the peak of the student's card; the teacher scores elsewhere."""
    data = model / "rows.jsonl"
    text = " ".join(["w3"] * PROMPT)
    rows = [{"messages": [{"role": "user", "content": text}], "id": str(i)} for i in range(PROMPTS)]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    config = RunConfig.model_validate(
        {
            "log_path": f"{model}/runs/{{name}}",
            "data": {"path": str(data)},
            "student": {"name": "local", "model": str(model), "device": "cuda", "dtype": "bfloat16", **options},
            "teachers": [{"model": str(teacher), "scorer": {"name": "local", "device": "cpu"}}],
            "sampling": {"completions_per_prompt": COMPLETIONS, "max_completion_tokens": COMPLETION},
            "train": {"prompt_groups_per_step": PROMPTS},
            "probe": {"at_start": "never"},
        }
    )
    prepared = prepare_run(config, Registry.discover(), lambda _: None, planned_device=planned_device(CARD))
    return next(fit.peak for fit in prepared.memory.fits if fit.memory.device.startswith("cuda"))


def write(folder: Path, size: Size) -> None:
    """A directory with a model of this size whose weights are holes."""
    folder.mkdir()
    config = size.config()
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = Qwen3ForCausalLM._from_config(config, dtype=torch.bfloat16)
    end = 0
    header: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        if size.tied and name == "lm_head.weight":
            continue
        start, end = end, end + tensor.numel() * 2
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    words = ["<pad>", "<end>", *(f"w{i}" for i in range(2, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", chat_template=template
    ).save_pretrained(folder)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
