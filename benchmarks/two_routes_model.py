"""As two_routes.py, on a real (tiny) model: two routes of answers of about 12 and 120 tokens, by the local backend.

    python benchmarks/two_routes_model.py FOLDER [--seeds 0 1 2] [--rates 1e-3]

The student is a Llama of two layers with a token a byte, first trained to answer `short N` and `long N` with random
letters that end with a chance of 1/12 and 1/120 at each. Each teacher is that student, trained on answers of its own
route, which have some letters more often than others. The loss is `divergence` (reverse, full). Models and finished
runs in FOLDER are not made again.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from distillkit import RunConfig, run

LENGTHS = {"short": 12, "long": 120}
LETTERS = "abcdefghijklmnop"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END, NO_LABEL, LONGEST = 2, -100, 240
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
ROWS, HELD_OUT, TOKENS_A_BATCH = 8, 48, 480
SPREAD = 1.5


def likes(route: str | None) -> np.ndarray:
    """The chance of each letter; None: all alike."""
    logits = np.zeros(len(LETTERS))
    if route is not None:
        logits = SPREAD * np.random.default_rng(list(LENGTHS).index(route)).standard_normal(len(LETTERS))
    return np.exp(logits) / np.exp(logits).sum()


def answer(chances: np.ndarray, length: int, chance: np.random.Generator) -> str:
    """As many letters as come before the end."""
    return "".join(chance.choice(list(LETTERS), size=min(chance.geometric(1 / length), LONGEST) - 1, p=chances))


def write_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A token a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate([*SPECIAL, *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    end = SPECIAL[END]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end, chat_template=TEMPLATE)
    fast.save_pretrained(folder)
    return fast


def new_model() -> LlamaForCausalLM:
    """With random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(SPECIAL) + 256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=END,
        pad_token_id=END,
        bos_token_id=1,
    )
    return LlamaForCausalLM(config)


def make(folder: Path, route: str | None, start: Path | None, steps: int) -> Path:
    """The student (of no route), or the teacher of one, by supervised training."""
    if folder.exists():
        return folder
    tokenizer = write_tokenizer(folder.with_name(f".{folder.name}"))
    model = new_model() if start is None else LlamaForCausalLM.from_pretrained(start)
    optimizer, chance = torch.optim.AdamW(model.parameters(), 3e-3), np.random.default_rng(0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        taught = [route] if route else list(LENGTHS)
        loss = sum(model(**batch(tokenizer, each, likes(route), chance)).loss for each in taught) / len(taught)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"{folder.name}: {loss.item():.3f} nats a token at the end of its own training", flush=True)
    scratch = folder.with_name(f".{folder.name}")
    model.save_pretrained(scratch)
    return scratch.rename(folder)


def batch(
    tokenizer: PreTrainedTokenizerFast, route: str, chances: np.ndarray, chance: np.random.Generator
) -> Mapping[str, torch.Tensor]:
    """Answers of a route, as many tokens as of any other."""
    ids, labels = [], []
    for _ in range(TOKENS_A_BATCH // LENGTHS[route]):
        message = {"role": "user", "content": f"{route} {chance.integers(1000)}"}
        prompt = tokenizer.apply_chat_template([message], add_generation_prompt=True, return_dict=False)
        said = [*tokenizer.encode(answer(chances, LENGTHS[route], chance), add_special_tokens=False), END]
        ids.append(torch.tensor([*prompt, *said]))
        labels.append(torch.tensor([*[NO_LABEL] * len(prompt), *said]))
    pad = torch.nn.utils.rnn.pad_sequence
    padded = pad(ids, batch_first=True, padding_value=END)
    targets = pad(labels, batch_first=True, padding_value=NO_LABEL)
    mask = pad([torch.ones_like(each) for each in ids], batch_first=True)
    return {"input_ids": padded, "labels": targets, "attention_mask": mask}


def measured(
    routes: Sequence[str], normalization: str, seed: int, rate: float, options: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Of each route and evaluation, the held-out reverse KL a token and the mean length."""
    name = f"{'-'.join(routes)}-{normalization}-{rate:g}-{seed}"
    metrics = options.folder / name / "metrics.jsonl"
    if not (options.folder / name / "summary.json").exists():
        train_one(name, routes, normalization, seed, rate, options)
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if "eval/reverse_kl" in line]
    return {
        route: {name: [line[f"eval_route/{route}/{name}"] for line in found] for name in ("reverse_kl", "mean_length")}
        for route in routes
    }


def rows(path: Path, routes: Sequence[str], numbers: range) -> str:
    """Write a file of prompts, as many of each route."""
    lines = [
        json.dumps({"messages": [{"role": "user", "content": f"{route} {number}"}], "teacher": route})
        for number in numbers
        for route in routes
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def train_one(
    name: str, routes: Sequence[str], normalization: str, seed: int, rate: float, options: argparse.Namespace
) -> None:
    """A run, of as many rows of each route in each step as in every other run."""
    student, data = str(options.folder / "student"), "-".join(routes)
    teachers: list[Any] = [
        {"model": str(options.folder / f"teacher-{route}"), "route_value": route, "share": 1} for route in routes
    ]
    train_rows = rows(options.folder / f"{data}.jsonl", routes, range(HELD_OUT, HELD_OUT + options.steps * ROWS))
    run(
        RunConfig.model_validate(
            {
                "name": name,
                "seed": seed,
                "log_path": str(options.folder / "{name}"),
                "data": {
                    "path": train_rows,
                    "eval_path": rows(options.folder / f"{data}-held-out.jsonl", routes, range(HELD_OUT)),
                },
                "student": {"name": "local", "model": student, "lora_rank": 0, "learning_rate": rate},
                "teachers": teachers,
                "router": "field",
                "loss": {"name": "divergence", "direction": "reverse", "support": "full"},
                "sampling": {"max_completion_tokens": LONGEST},
                "train": {
                    "prompt_groups_per_step": ROWS * len(routes),
                    "max_steps": options.steps,
                    "normalization": normalization,
                    "eval_every": options.steps // 2,
                },
                "probe": {"at_start": "never"},
                "sinks": [],
            }
        )
    )


def table(rate: float, options: argparse.Namespace) -> None:
    """Print a table of one learning rate."""
    both = list(LENGTHS)
    cases = {
        "token_mean": [measured(both, "token_mean", seed, rate, options) for seed in options.seeds],
        "route_mean": [measured(both, "route_mean", seed, rate, options) for seed in options.seeds],
    }
    print(f"\nlearning rate {rate:g}\n| steps | route | gap at the start | alone | token_mean | route_mean |")
    print("|---|---|---|---|---|---|")
    for route in both:
        alone = [measured([route], "token_mean", seed, rate, options) for seed in options.seeds]
        columns = [[found[route] for found in each] for each in (alone, *cases.values())]
        for at, step in enumerate((options.steps // 2, options.steps), 1):
            shares = [[1 - found["reverse_kl"][at] / found["reverse_kl"][0] for found in each] for each in columns]
            texts = [f"{mean(each):.0%} ({', '.join(f'{share:.0%}' for share in each)})" for each in shares]
            start = mean(found["reverse_kl"][0] for found in columns[0])
            length = mean(found["mean_length"][0] for found in columns[0])
            print(f"| {step} | {route}, {length:.0f} tokens | {start:.2f} | {' | '.join(texts)} |", flush=True)


def main() -> None:
    """Make the models, then print a table for each learning rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    student = make(options.folder / "student", None, None, 400)
    for route in LENGTHS:
        make(options.folder / f"teacher-{route}", route, student, 150)
    for rate in options.rates:
        table(rate, options)


if __name__ == "__main__":
    main()
