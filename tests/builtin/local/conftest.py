from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers.explicit_attention import attention_in_the_place_of
from helpers.recorded_work import RecordedWork

from distillkit.arrays import token_ids
from distillkit.records import Rollout
from distillkit.types import Message, SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fast.pace import Pace
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.fixed.fixed_rows import FixedDecoder
from distillkit_builtin.local.inference.generator import Generator
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.packing.packed_attention import ATTENTION
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Models this small are slower on two threads."""
    torch.set_num_threads(1)


@pytest.fixture
def load() -> Callable[..., CausalLM]:
    """Read a model onto the CPU."""
    device = Device(torch.device("cpu"))

    def read(source: str, dtype: torch.dtype = torch.float32) -> CausalLM:
        return proved(CausalLM.load(source, device, dtype, dtype))

    return read


@pytest.fixture
def causal_lm(load: Callable[..., CausalLM], tiny_model: str) -> CausalLM:
    return load(tiny_model)


@pytest.fixture
def ask(tiny_model: str) -> Callable[..., list[SampleRequest]]:
    """Requests with prompts of three lengths."""
    tokenizer = HFTokenizer.load(tiny_model)

    def make(count: int = 6, **params: object) -> list[SampleRequest]:
        sampling = SamplingParams(**{"max_tokens": 12, **params})  # type: ignore[arg-type]
        prompts = [tokenizer.render([Message("user", "why " * (1 + i % 3))], {}) for i in range(count)]
        return [SampleRequest(SampleKey("1-x", 0, i), token_ids(p), 70 + i, sampling) for i, p in enumerate(prompts)]

    return make


@pytest.fixture
def make_generator(tiny_model: str) -> Callable[[CausalLM, Sequence[int], str], Generator]:
    """A generator that knows no ends but those that are given: `plain`, `recorded` as that is on CUDA, `fast`, or
    `behind` as that is on CUDA."""

    def make(causal_lm: CausalLM, eos: Sequence[int], forward: str) -> Generator:
        tokenizer = HFTokenizer.load(tiny_model)
        if forward == "plain":
            return PlainGenerator(causal_lm, tokenizer, frozenset(eos))
        if forward == "recorded":
            fixed = FixedDecoder(causal_lm, RecordedWork, shortest=32)
            return PlainGenerator(causal_lm, tokenizer, frozenset(eos), fixed, ahead=True)
        pace = Pace(3, 1) if forward == "behind" else None
        return SlotGenerator(verified_backbone(causal_lm), tokenizer, frozenset(eos), pace)

    return make


@pytest.fixture(params=["plain", "fast"])
def forward(request: pytest.FixtureRequest) -> str:
    """Both ways to compute what is not trained."""
    return str(request.param)


@pytest.fixture
def sample(make_generator: Callable[..., Generator], forward: str) -> Callable[..., list[Rollout]]:
    """Completions in the order of their requests."""

    def sampled(
        causal_lm: CausalLM,
        requests: Sequence[SampleRequest],
        eos: Sequence[int] = (2,),
        size: int = 64,
    ) -> list[Rollout]:
        rollouts: list[Rollout] = []
        make_generator(causal_lm, eos, forward).generate(requests, size, 0, rollouts.append)
        return sorted(rollouts, key=lambda rollout: rollout.key)

    return sampled


def plain_logprobs(model: torch.nn.Module, item: PromptAndResponse) -> torch.Tensor:
    """[R] from the model's own forward and a softmax over everything: what the backend must agree with."""
    ids = torch.tensor([*item.prompt_ids.tolist(), *item.response_ids.tolist()])
    distributions = torch.log_softmax(model(input_ids=ids[None]).logits[0].float(), dim=-1)
    start = len(item.prompt_ids)
    return torch.stack([distributions[t - 1, ids[t]] for t in range(start, len(ids))])


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def put() -> Iterator[Callable[[Any], None]]:
    """Puts another attention in the place of the one for packed rows."""
    with attention_in_the_place_of(ATTENTION) as put_there:
        yield put_there
