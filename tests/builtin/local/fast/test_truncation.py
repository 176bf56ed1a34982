from collections.abc import Callable

import pytest
import torch

from distillkit.types import SamplingParams
from distillkit_builtin.local.fast import truncation
from distillkit_builtin.local.fast.truncation import keep_top_k, keep_top_p, ordered_keys, truncated_logits
from distillkit_builtin.local.sampling import plain_generator
from distillkit_builtin.local.sampling.plain_generator import truncated_logprobs

INF = torch.inf
ROUNDING = 1e-5
"""Of sums over 1,000 probabilities in float32, in any order: tens of times what is found."""


def random(rows: int, size: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(0)) * scale


def tied() -> torch.Tensor:
    """Few different logits, as bfloat16 makes them."""
    return random(16, 300).round()


def one_huge() -> torch.Tensor:
    logits = random(8, 100)
    logits[torch.arange(8), torch.arange(8) * 12] = 1e4
    return logits


def mostly_impossible() -> torch.Tensor:
    logits = random(8, 100).masked_fill(random(8, 100) > -2, -INF)
    logits[:, 7] = 0.0
    return logits


def around_zero() -> torch.Tensor:
    """Both zeros, and the smallest numbers of either sign, which float32 tells apart."""
    return torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 1.0, -1.0]).repeat(3, 5)


DISTRIBUTIONS: list[Callable[[], torch.Tensor]] = [
    lambda: random(32, 1000),
    tied,
    one_huge,
    mostly_impossible,
    around_zero,
]


def by_sorting(logits: torch.Tensor, params: SamplingParams) -> tuple[torch.Tensor, torch.Tensor]:
    """What is sampled from, with everything in order; a token stays with the first of its logit. In double precision.

    And how far each token's mass before it is from the limit.
    """
    ordered, order = (logits.double() / params.temperature).sort(dim=1, descending=True)
    first = torch.searchsorted(-ordered, -ordered)
    if params.top_k:
        ordered = ordered.masked_fill(first >= params.top_k, -INF)
    probabilities = torch.softmax(ordered, 1)
    before = (probabilities.cumsum(1) - probabilities).gather(1, first)
    dropped = (before >= params.top_p) & (first > 0) if params.top_p < 1 else torch.zeros_like(before, dtype=torch.bool)
    kept, apart = torch.empty_like(ordered), (before - params.top_p).abs()
    kept.scatter_(1, order, ordered.masked_fill(dropped, -INF))
    return torch.log_softmax(kept, 1), torch.empty_like(apart).scatter(1, order, apart)


@pytest.fixture(params=[1, 2, 4])
def bits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(truncation, "BITS", request.param)
    return int(request.param)


@pytest.mark.parametrize("make_logits", DISTRIBUTIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 1},
        {"top_k": 5},
        {"top_k": 10_000},
        {"top_p": 0.9},
        {"top_p": 1e-6},
        {"top_p": 0.999},
        {"top_p": 0.7, "top_k": 9, "temperature": 0.6},
    ],
)
@pytest.mark.parametrize("way", ["search", "order"])
def test_what_is_sampled_from_is_what_sorting_finds(
    bits: int,
    monkeypatch: pytest.MonkeyPatch,
    make_logits: Callable[[], torch.Tensor],
    options: dict[str, float],
    way: str,
) -> None:
    monkeypatch.setattr(plain_generator, "FIRST_CANDIDATES", bits)
    params = SamplingParams(1, **options)  # type: ignore[arg-type]
    found = (
        torch.log_softmax(truncated_logits(make_logits(), params), 1)
        if way == "search"
        else truncated_logprobs(make_logits(), params)
    )
    expected, apart = by_sorting(make_logits(), params)
    differ = found.isinf() != expected.isinf()
    assert (apart[differ] < ROUNDING).all()  # a token that lies on the limit within it may stay or go
    agree = ~differ.any(1)
    assert agree.any()
    torch.testing.assert_close(found[agree].double(), expected[agree], rtol=2e-6, atol=ROUNDING)


@pytest.mark.parametrize("make_logits", DISTRIBUTIONS)
def test_a_token_stays_that_has_less_than_the_limit_above_itself(
    bits: int, make_logits: Callable[[], torch.Tensor]
) -> None:
    logits = make_logits()
    masses = torch.softmax(logits.double(), 1)
    above = torch.stack([(masses * (logits > logits[:, [i]])).sum(1) for i in range(logits.shape[1])], dim=1)
    kept = keep_top_p(logits, torch.tensor(0.8)) > -INF
    clear = (above - 0.8).abs() > ROUNDING
    assert torch.equal(kept[clear], ((above < 0.8) & (logits > -INF))[clear])
    rank = torch.stack([(logits > logits[:, [i]]).sum(1) for i in range(logits.shape[1])], dim=1)
    assert torch.equal(keep_top_k(logits, torch.tensor(5.0)) > -INF, (rank < 5) & (logits > -INF))


def test_tokens_of_one_logit_stay_or_go_together_in_any_order(bits: int) -> None:
    logits = torch.tensor([[0.0, 1.0, 1.0, 1.0, 0.0, -1.0]])
    turn = torch.tensor([3, 0, 5, 1, 4, 2])
    for cut in (keep_top_p(logits, torch.tensor(0.3)), keep_top_k(logits, torch.tensor(2.0))):
        assert cut.tolist() == [[-INF, 1.0, 1.0, 1.0, -INF, -INF]]
    assert torch.equal(keep_top_p(logits[:, turn], torch.tensor(0.3)), keep_top_p(logits, torch.tensor(0.3))[:, turn])


def test_keys_are_in_the_order_of_the_numbers() -> None:
    values = torch.tensor([-INF, -1e38, -1.0, -1e-45, 0.0, 1e-45, 1.0, 1e38, INF])
    keys = ordered_keys(values)
    assert (keys.diff() > 0).all()
    assert ordered_keys(torch.tensor([-0.0])) == ordered_keys(torch.tensor([0.0]))
    assert keys.min() > truncation.LOWEST
