"""Which ids are sampled: none without a token, and at hardly any temperature the most probable."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.model_families import random_model
from helpers.tiny_models import VOCABULARY, write_tokenizer

import distillkit
from builtin.local.conftest import plain_logprobs
from distillkit import RunConfig
from distillkit.records import Rollout
from distillkit.types import SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.inference.generator import Generator
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.sampling.plain_generator import sample_indices, truncated_logprobs

Ask = Callable[..., list[SampleRequest]]
Make = Callable[..., Generator]
ROWS = VOCABULARY + 21


@pytest.fixture(params=["plain", "fast", "behind"])
def forward(request: pytest.FixtureRequest) -> str:
    """Every way to sample: the host may also read a round of tokens while the next is sampled."""
    return str(request.param)


def write_padded(folder: Path, scale: float) -> str:
    """A model with more rows than its tokenizer has tokens; their share of the probability grows with `scale`."""
    model = random_model("llama", vocab_size=ROWS, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[VOCABULARY:] *= scale
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


@pytest.fixture
def padded(load: Callable[..., CausalLM], tmp_path: Path) -> CausalLM:
    """More than half of what it says has no token."""
    return load(write_padded(tmp_path, 4.0))


def generate(generator: Generator, requests: list[SampleRequest]) -> list[Rollout]:
    rollouts: list[Rollout] = []
    generator.generate(requests, 4, 0, rollouts.append)
    return rollouts


@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.0}, {"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}, {"temperature": 1e-40}]
)
def test_rows_without_a_token_are_never_sampled_and_logprobs_are_the_models_own(
    padded: CausalLM, make_generator: Make, ask: Ask, forward: str, params: dict[str, float]
) -> None:
    generator = make_generator(padded, (2,), forward)
    for rollout in generate(generator, ask(8, **params)):
        assert rollout.token_ids.max() < VOCABULARY
        expected = plain_logprobs(padded.model, PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids))
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_their_probability_is_measured_and_told_once(
    padded: CausalLM, make_generator: Make, ask: Ask, forward: str
) -> None:
    generator = make_generator(padded, (), forward)
    rollouts = generate(generator, ask(8))
    masses = []
    for rollout in rollouts:
        ids = torch.tensor([*rollout.request.prompt_ids, *rollout.token_ids])
        probabilities = torch.softmax(padded.model(input_ids=ids[None]).logits[0].float(), dim=-1)
        masses += probabilities[len(rollout.request.prompt_ids) - 1 : -1, VOCABULARY:].sum(1).tolist()
    notice = generator.known.notice()
    assert notice is not None
    share, _, words = notice.partition(" ")
    assert float(share) == pytest.approx(sum(masses) / len(masses), rel=0.05)
    assert words.startswith(
        f"of the model's probability is on 21 rows that have no token (the tokenizer has {VOCABULARY})"
    )
    assert generator.known.notice() is None


def test_rows_that_hardly_matter_are_not_worth_a_word(
    load: Callable[..., CausalLM], tmp_path: Path, make_generator: Make, ask: Ask, forward: str
) -> None:
    model = load(write_padded(tmp_path, 0.0))
    with torch.no_grad():
        model.model.lm_head.weight.mul_(8.0)
    generator = make_generator(model, (2,), forward)
    generate(generator, ask(8))
    assert generator.known.notice() is None


def test_where_each_row_has_a_token_nothing_is_done(causal_lm: CausalLM, tiny_model: str) -> None:
    known = KnownIds.of(HFTokenizer.load(tiny_model))
    logits = torch.randn(2, VOCABULARY)
    assert known.only(logits) is logits
    known.measure(logits, torch.tensor([1, 2]), torch.tensor([-1.0, -1.0]))
    assert known.notice() is None


def test_a_run_notifies_of_them(local_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    source = write_padded(tmp_path / "padded", 4.0)
    result = distillkit.run(
        local_config(student={"model": source}, teachers=[{"model": source}], train={"max_steps": 1})
    )
    assert "rows that have no token" in (result.run_dir / "run.log").read_text()
    assert result.summary["failed_completions"] == 0
    assert result.metrics[0]["rollout/logprob_mismatch_max"] == pytest.approx(0.0, abs=1e-3)


def test_what_was_cut_is_not_sampled_where_rounding_reaches_the_end() -> None:
    logprobs = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).log()
    assert sample_indices(logprobs, torch.tensor([1.0])).item() == 1
    last = truncated_logprobs(torch.linspace(5, 0, 1000)[None], SamplingParams(1, top_k=7))
    assert sample_indices(last, torch.tensor([1 - 2**-24])).item() == 6


@pytest.mark.parametrize("temperature", [1e-45, 1e-40, 1e-31, 1e-29, 1e-12])
def test_at_hardly_any_temperature_the_most_probable_is_taken(
    causal_lm: CausalLM, make_generator: Make, ask: Ask, forward: str, temperature: float
) -> None:
    generator = make_generator(causal_lm, (2,), forward)
    found = {rollout.key: rollout for rollout in generate(generator, ask(4, temperature=temperature))}
    for rollout in generate(generator, ask(4, temperature=0.0)):
        assert found[rollout.key].token_ids.tolist() == rollout.token_ids.tolist()
