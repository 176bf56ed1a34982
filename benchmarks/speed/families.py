"""Tokens a second of sampling, by family: the fast path, transformers' own forward here, and its `generate`.

python -m benchmarks.speed.families gpu                                   # all sides; ends within 8 minutes
python -m benchmarks.speed.families gpu --families qwen3_moe --sides "plain, fixed" "generate, static"
python -m benchmarks.speed.families cpu --sides fast plain "plain, fixed"

"plain, fixed" is transformers' forward in steps of fixed shapes: CUDA graphs on a GPU, as they come elsewhere. What its
proof says is printed. A static cache makes transformers compile its forward: the first call, which is not counted,
takes half a minute. On a CPU one thread computes, and its own time counts, so that other work on the machine does not.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig

from benchmarks.speed.inputs import write_tokenizer
from benchmarks.speed.machine import describe
from distillkit.arrays import token_ids
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fast.self_check import largest_difference, verified_backbone
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.fixed.fixed_rows import FixedDecoder
from distillkit_builtin.local.fixed.fused_norms import norms_on_cuda
from distillkit_builtin.local.fixed.step_graph import CudaCapture
from distillkit_builtin.local.fixed.step_proof import proved_decoder
from distillkit_builtin.local.fixed.unsupported_step import UnsupportedStepError
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model_files.model_class import auto_class
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator

PAD, END = 0, 1
SIDES = ("fast", "plain, fixed", "generate, static", "plain", "generate")
RATIOS = (("fast", "plain, fixed"), ("plain, fixed", "generate, static"), ("plain, fixed", "plain"))


@dataclass(frozen=True)
class Size:
    """A decoder, and how much it samples at once."""

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    completions: int
    prompt_tokens: int
    new_tokens: int
    device: str
    dtype: torch.dtype

    @property
    def values(self) -> dict[str, Any]:
        """What every family's config has."""
        return {
            "hidden_size": self.hidden, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads // 2, "intermediate_size": 3 * self.hidden,
            "vocab_size": self.vocabulary, "max_position_embeddings": 4096, "pad_token_id": PAD, "eos_token_id": END,
            "bos_token_id": None, "tie_word_embeddings": True,
        }  # fmt: skip

    def __str__(self) -> str:
        """As the table's title has it."""
        return (
            f"hidden {self.hidden}, {self.layers} layers, {self.completions} x ({self.prompt_tokens} + "
            f"{self.new_tokens}) tokens, {str(self.dtype).removeprefix('torch.')}"
        )


SIZES = {
    "gpu": Size(1024, 12, 16, 32_768, 64, 128, 256, "cuda", torch.bfloat16),
    "cpu": Size(256, 8, 8, 4096, 32, 40, 64, "cpu", torch.float32),
    "cpu-bf16": Size(256, 8, 8, 4096, 32, 40, 64, "cpu", torch.bfloat16),
    "tiny": Size(64, 2, 4, 512, 4, 10, 8, "cpu", torch.float32),  # whether the benchmark itself works
}
FAMILIES: Mapping[str, Callable[[Size], dict[str, Any]]] = {
    "llama": lambda size: {},
    "qwen3_moe": lambda size: {
        "num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 3 * size.hidden // 4,
        "norm_topk_prob": True, "head_dim": size.hidden // size.heads,
    },
    "gemma3_text": lambda size: {  # few and wide heads, as of 1B; five layers of six have a window
        "num_attention_heads": size.heads // 4, "num_key_value_heads": 1, "head_dim": 4 * size.hidden // size.heads,
        "query_pre_attn_scalar": 4 * size.hidden // size.heads, "sliding_window": size.prompt_tokens,
    },
    "olmo2": lambda size: {},
    "granite": lambda size: {
        "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0,
        "attention_multiplier": 1 / 64,
    },
}  # fmt: skip


def main() -> None:
    """Measure, print every figure when it is there, and a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=[side for side in SIDES if side != "generate"])
    parser.add_argument("--repeats", type=int, default=1, help="the best counts; one more comes before")
    parser.add_argument("--seconds", type=float, default=400, help="after so many, nothing more is begun")
    options = parser.parse_args()
    size = SIZES[options.size]
    if size.device == "cpu":
        torch.set_num_threads(1)
    title = f"tokens a second: {size}, {describe(size.device)}, torch {torch.__version__}"
    table = Table("", *options.sides, *(f"{one} / {other}" for one, other in RATIOS), title=title)
    end = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), size.vocabulary)
        tokenizer = HFTokenizer.load(folder)
        for family in options.families:
            measured = measure(family, size, tokenizer, options.sides, options.repeats, end)
            figures = [f"{measured[side]:,.0f}" if side in measured else "none" for side in options.sides]
            table.add_row(family, *figures, *(ratio(measured, one, other) for one, other in RATIOS))
    Console(width=140).print(table)


def ratio(measured: dict[str, float], one: str, other: str) -> str:
    """How many times as fast one side is as another; nothing where either was not measured."""
    return f"{measured[one] / measured[other]:.2f}" if {one, other} <= set(measured) else ""


def measure(
    family: str, size: Size, tokenizer: HFTokenizer, sides: list[str], repeats: int, end: float
) -> dict[str, float]:
    """Tokens a second by side; none is begun after `end`, a time of the monotonic clock."""
    measured: dict[str, float] = {}
    if time.monotonic() > end:
        return measured
    causal_lm = build(family, size)
    for side in sides:
        begin = time.perf_counter()
        if time.monotonic() > end:
            print(f"{family}, {side}: no time left", flush=True)
            continue
        try:
            measured[side] = best(sampler(side, causal_lm, tokenizer, size), size, repeats)
        except (
            RuntimeError,
            ValueError,
            UnsupportedModelError,
            UnsupportedStepError,
        ) as error:  # the others are measured all the same
            print(f"{family}, {side}: {type(error).__name__}: {error}", flush=True)
            continue
        spent = time.perf_counter() - begin
        print(f"{family}, {side}: {measured[side]:,.0f} tokens/s ({spent:.0f} s in all)", flush=True)
    return measured


def build(family: str, size: Size) -> CausalLM:
    """A model with random weights, made on the device."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**size.values, **FAMILIES[family](size)})
    with torch.device(size.device):
        model = auto_class(config).from_config(config, dtype=size.dtype)
    model.eval().requires_grad_(False)
    return proved(CausalLM(model, Device(torch.device(size.device)), size.dtype))


def sampler(side: str, causal_lm: CausalLM, tokenizer: HFTokenizer, size: Size) -> Callable[[], int]:
    """Samples once, and returns how many tokens that were."""
    numbers = np.random.default_rng(0)
    prompts = [token_ids(numbers.integers(2, size.vocabulary, size.prompt_tokens)) for _ in range(size.completions)]
    if side.startswith("generate"):
        ids = torch.from_numpy(np.stack(prompts)).to(size.device)
        return lambda: generated(causal_lm, ids, size, static=side.endswith("static"))
    params = SamplingParams(max_tokens=size.new_tokens)
    requests = [SampleRequest(SampleKey(f"{i}", 0, 0), prompt, i, params) for i, prompt in enumerate(prompts)]
    ends = frozenset({END})
    if side == "fast":
        backbone = verified_backbone(causal_lm)
        print("proven, at most {:.2g} apart: {}".format(*largest_difference(backbone)))
        generator: SlotGenerator | PlainGenerator = SlotGenerator(backbone, tokenizer, ends)
    else:
        decoder = fixed_decoder(causal_lm, size) if side.endswith("fixed") else None
        generator = PlainGenerator(causal_lm, tokenizer, ends, decoder)

    def sample() -> int:
        rollouts: list[Rollout] = []
        generator.generate(requests, size.completions, 0, rollouts.append)
        return sum(len(rollout.token_ids) for rollout in rollouts)

    return sample


def fixed_decoder(causal_lm: CausalLM, size: Size) -> FixedDecoder:
    """Proved, as on a GPU a run's own; prints whether its norms are fused, and how long the proof took."""
    begin = time.perf_counter()
    on_cuda = size.device == "cuda"
    decoder = proved_decoder(causal_lm, CudaCapture() if on_cuda else None, norms_on_cuda() if on_cuda else None)
    kind = "as they come" if decoder.norms is None else "fused"
    print(f"steps proven in {time.perf_counter() - begin:.1f} s, norms {kind}", flush=True)
    return decoder


@torch.inference_mode()
def generated(causal_lm: CausalLM, ids: torch.Tensor, size: Size, *, static: bool) -> int:
    """By transformers' `generate`, from the same distribution; no sequence ends before the others."""
    cache = {"cache_implementation": "static"} if static else {}
    length = {"max_new_tokens": size.new_tokens, "min_new_tokens": size.new_tokens}
    mask = torch.ones_like(ids)
    model: Any = causal_lm.model
    out = model.generate(ids, attention_mask=mask, do_sample=True, top_k=0, pad_token_id=PAD, **length, **cache)
    return int(out.shape[0] * (out.shape[1] - ids.shape[1]))


def best(sample: Callable[[], int], size: Size, repeats: int) -> float:
    """Tokens a second of the fastest of so many calls, after one that may compile."""
    rates = []
    clock = time.perf_counter if size.device == "cuda" else time.process_time
    for _ in range(1 + repeats):
        begin = clock()
        tokens = sample()
        if size.device == "cuda":
            torch.cuda.synchronize()
        rates.append(tokens / (clock() - begin))
    return max(rates[1:])


if __name__ == "__main__":
    main()
