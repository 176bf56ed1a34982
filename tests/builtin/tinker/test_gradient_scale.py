"""What a server divides gradients by, told from what a few small steps report."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from builtin.tinker.plain_sdk import PLAIN_SDK
from distillkit.errors import InputError
from distillkit_builtin.tinker.gradient_scale import (
    AT,
    IDS,
    SHORT,
    GradientScale,
    logprob_in,
    norm_in,
    probe_datums,
    scale_of_loss,
    scale_of_norms,
)

G, LONG, LITTLE = 3.7, len(IDS) - 1, SHORT - 1


def norms(*, by_tokens: bool, by_sequences: bool) -> tuple[float, float, float]:
    """Of the short sequence, the long one, and two of that, whose gradients are the same before a server divides."""
    long, short = (G / LONG, G / LITTLE) if by_tokens else (G, G)
    return short, long, long if by_sequences else 2 * long


@pytest.mark.parametrize("by_tokens", [False, True])
@pytest.mark.parametrize("by_sequences", [False, True])
def test_each_way_to_divide_is_told_from_the_others(by_tokens: bool, by_sequences: bool) -> None:
    found = scale_of_norms(*norms(by_tokens=by_tokens, by_sequences=by_sequences))
    assert found == GradientScale(by_tokens, by_sequences)
    assert found.factor(7, 3) == (7 if by_tokens else 1) * (3 if by_sequences else 1)


@pytest.mark.parametrize("three", [(1.0, 1.0, 1.4), (1.0, 0.8, 1.6), (1.0, 2.0, 2.0)])
def test_norms_that_fit_neither_are_refused(three: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="neither sums nor means"):
        scale_of_norms(*three)


def test_both_sequences_train_the_same_position_behind_the_same_ids() -> None:
    (long,), (short,) = (probe_datums(PLAIN_SDK, 1, ids, -7.5) for ids in (IDS, IDS[:SHORT]))
    assert long.model_input[: SHORT - 1] == short.model_input
    for made in (long, short):
        assert [at for at, value in enumerate(made.loss_fn_inputs["advantages"]) if value] == [AT]
        assert [value for value in made.loss_fn_inputs["logprobs"] if value] == [-7.5]
        assert made.loss_fn_inputs["logprobs"][AT] == -7.5
    assert len(probe_datums(PLAIN_SDK, 2, IDS, 0.0)) == 2


def outputs(*values: float) -> list[dict[str, Any]]:
    return [{"logprobs": SimpleNamespace(data=list(values))}]


def test_the_models_own_logprob_is_that_of_the_token_that_trains() -> None:
    others = [-1.0] * (LONG - AT - 1)
    assert logprob_in(outputs(*[-1.0] * AT, -2.0, *others)) == -2.0
    nothing: list[list[dict[str, Any]]] = [[], [{}], outputs(), outputs(-1.0, -1.0, -2.0)]
    for bad in (*nothing, *(outputs(*[-1.0] * AT, value, *others) for value in (math.nan, -math.inf, 0.5))):
        with pytest.raises(InputError, match="computes no logprobs of a training step's tokens"):
            logprob_in(bad)


def test_a_loss_that_is_the_sum_says_that_gradients_are() -> None:
    assert scale_of_loss(-2 * math.exp(-2.0), -2.0) == GradientScale()
    with pytest.raises(InputError, match=r"summed over tokens, is -0\.2707"):
        scale_of_loss(-math.exp(-2.0), -2.0)


def test_what_is_divided_by_is_said_and_a_plain_sum_is_not() -> None:
    assert GradientScale().describe() == ""
    assert "each step by its number of sequences (measured)" in GradientScale(by_sequences=True).describe()
    assert "is not known" in GradientScale(measured=False).describe()


def test_a_norm_that_tells_nothing_is_none() -> None:
    assert norm_in({"skyrl.ai/grad_norm": 2.0, "lr": 1.0}) == 2.0
    assert norm_in({"skyrl.ai/grad_norm": 0.0}) is None
    assert norm_in({"grad_norm": float("nan")}) is None
    assert norm_in(None) is None
