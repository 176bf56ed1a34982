"""Sampling, scoring and training by themselves, beside the fastest matrix product of the device.

python -m benchmarks.speed.parts main lora
python -m benchmarks.speed.parts cpu-bf16 --repeats 2
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.machine import best, describe, matrix_peak
from benchmarks.speed.shapes import SHAPES, Shape
from distillkit.arrays import frozen_array, token_ids
from distillkit.training_data import Batch, Datum
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.micro_batching import padded_micro_batches
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device, resolve_dtype
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.inference.scoring import response_states, score_logprobs
from distillkit_builtin.local.live_teacher import SCORED, SCORED_ON_CUDA
from distillkit_builtin.local.memory.micro_batch_size import default_micro_batch
from distillkit_builtin.local.memory.room import total_bytes
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.footprint import model_structure
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.sampling.token_tables import scored_tables
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import OptimizerOptions, Trainer
from distillkit_builtin.losses.importance_sampling import importance_sampling

END = 1
"""The token that ends a completion."""
MANY = 512
"""Completions: a batch that fills a GPU."""
LARGE = 4e9
"""Weights of a model that is sampled from in its step's batch alone: the cache of more would not fit beside it."""


@dataclass(frozen=True)
class Part:
    """One part of a step, to be done as often as somebody likes before the next one is asked for."""

    what: str
    work: Callable[[], object]
    tokens: int
    flops: float | None = None
    """Operations that it computes; None where a share of the peak means nothing."""
    flops_of_all_weights: float | None = None
    """What they would be if no weight were frozen."""


def main() -> None:
    """Measure, and print a table a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="+", choices=sorted(SHAPES))
    parser.add_argument("--repeats", type=int, default=3, help="the best counts; one more comes before")
    options = parser.parse_args()
    for name in options.shapes:
        shape = SHAPES[name]
        with tempfile.TemporaryDirectory() as folder:
            inputs = write_inputs(Path(folder), shape, 1)
            peak = matrix_peak(shape.device, shape.dtype, 10 * options.repeats)
            title = (
                f"{name}: {shape}, {shape.dtype}, {describe(shape.device)}; matrix products {peak / 1e12:.2f} TFLOP/s"
            )
            table = Table("", "s", "tokens/s", "of the peak", "counted as if all weights were trained", title=title)
            for part in parts(inputs, shape):
                seconds = best(part.work, shape.device, options.repeats)
                shares = [share(flops, seconds, peak) for flops in (part.flops, part.flops_of_all_weights)]
                table.add_row(part.what, f"{seconds:.3f}", f"{part.tokens / seconds:,.0f}", *shares)
                del part  # and its model, before the next one's is loaded
            Console(width=140).print(table)


def share(flops: float | None, seconds: float, peak: float) -> str:
    """Of the peak, in percent; empty for None."""
    return "" if flops is None else f"{flops / seconds / peak:.1%}"


def parts(inputs: dict[str, Path], shape: Shape) -> Iterator[Part]:
    """One after another, each with its own model, which is freed behind it."""
    yield from sampling(inputs, shape)
    yield from scoring(inputs["teacher"], shape)
    yield training(inputs["student"], shape)


def sampling(inputs: dict[str, Path], shape: Shape) -> Iterator[Part]:
    """Sample a step's completions, and on CUDA a batch of many times that."""
    causal_lm = _causal_lm(inputs["student"], shape)
    tokenizer = HFTokenizer.load(str(inputs["student"]))
    more = shape.device == "cuda" and shape.sequences < MANY and shape.student.parameters < LARGE
    for count in (shape.sequences, MANY) if more else (shape.sequences,):
        generator = SlotGenerator(verified_backbone(causal_lm), tokenizer, frozenset({END}))
        params = SamplingParams(max_tokens=shape.new_tokens)
        prompts = [item.prompt_ids for item in _items(shape, count)]
        requests = [SampleRequest(SampleKey(f"{i}", 0, 0), ids, i, params) for i, ids in enumerate(prompts)]

        for what, wanted in (("", {}), (", top-20 and entropy", {"topk": 20, "entropy": 1})):
            asked = [replace(request, wanted=wanted) for request in requests]

            def sample(
                generator: SlotGenerator = generator, asked: Sequence[SampleRequest] = asked, count: int = count
            ) -> None:
                generator.generate(asked, count, 0, lambda rollout: None)

            yield Part(f"sampling {count} completions{what}", sample, count * shape.new_tokens)


def scoring(model: Path, shape: Shape) -> Iterator[Part]:
    """Score a step's completions under the teacher: the sampled tokens alone, then with its top-20 and 40 ids."""
    causal_lm = _causal_lm(model, shape)
    backbone = verified_backbone(causal_lm)
    items = _items(shape, shape.sequences)
    groups = padded_micro_batches(list(map(len, items)), SCORED_ON_CUDA if shape.device == "cuda" else SCORED)
    known = KnownIds.of(HFTokenizer.load(str(model)))

    def score() -> None:
        for group in groups:
            score_logprobs(causal_lm, [items[i] for i in group], backbone)

    def score_tables() -> None:
        for group in groups:
            states = response_states(causal_lm, [items[i] for i in group], backbone)
            at_ids = states.ids[:, None].expand(-1, 40)
            for values in scored_tables(causal_lm, states, known, 20, at_ids).values():
                values.cpu()

    tokens = sum(map(len, items))
    yield Part("scoring", score, tokens, shape.scoring_flops)
    yield Part("scoring, top-20 and 40 ids", score_tables, tokens, shape.scoring_flops)


def training(model: Path, shape: Shape) -> Part:
    """One optimizer step on a step's completions."""
    causal_lm = _causal_lm(model, shape, float32=shape.lora_rank == 0)
    policy = Policy.lora(causal_lm, shape.lora_rank, 32, 0.0, 0) if shape.lora_rank else Policy.full(causal_lm)
    policy.pack()
    if shape.device == "cuda":
        policy.compile()
    device = causal_lm.device.device
    memory = total_bytes(device, None) if device.type == "cuda" else 0
    at_once = default_micro_batch(device, model_structure(str(model)), lora=shape.lora_rank > 0, memory=memory)
    trainer = Trainer(policy, OptimizerOptions(1e-5, "constant_with_warmup", 0, 10, 0.0, (0.9, 0.999), 1.0, at_once, 0))
    items = _items(shape, shape.sequences)
    datums = tuple(_datum(i, item) for i, item in enumerate(items))
    batch = Batch("importance_sampling", {"ratio_log_cap": 20.0}, datums, importance_sampling)
    what = f"training, LoRA of rank {shape.lora_rank}" if shape.lora_rank else "training, all weights"
    of_all = shape.training_flops_of_all_weights if shape.lora_rank else None
    return Part(what, lambda: trainer.step(batch), sum(map(len, items)), shape.training_flops, of_all)


def _causal_lm(model: Path, shape: Shape, *, float32: bool = False) -> CausalLM:
    device = torch.device(shape.device)
    dtype = resolve_dtype(shape.dtype, device)  # type: ignore[arg-type]
    return proved(CausalLM.load(str(model), Device(device), dtype, torch.float32 if float32 else dtype))


def _items(shape: Shape, count: int) -> list[PromptAndResponse]:
    """Random tokens; as many with one prompt as the shape says."""
    numbers = np.random.default_rng(0)

    def some(length: int) -> np.ndarray:
        return token_ids(numbers.integers(2, shape.student.vocabulary, length))

    prompts = [some(shape.prompt_tokens) for _ in range(count // shape.completions)]
    return [PromptAndResponse(prompt, some(shape.new_tokens)) for prompt in prompts for _ in range(shape.completions)]


def _datum(index: int, item: PromptAndResponse) -> Datum:
    size = len(item.response_ids)
    numbers = {"sampling_logprobs": np.full(size, -10.0), "advantages": np.ones(size), "weights": np.full(size, 1e-4)}
    inputs = {name: frozen_array(values, np.float32) for name, values in numbers.items()}
    return Datum(SampleKey(f"{index}", 0, 0), item.prompt_ids, item.response_ids, inputs)


if __name__ == "__main__":
    main()
