"""Each built-in weighting equals its formula, one token at a time in plain Python."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillkit import Registry, Rollout, ScoredRollout, Weighting
from distillkit.testing import ByteTokenizer, check_plugin, make_context, make_rollout, make_row, make_scored
from distillkit_builtin.weightings.entropy import Entropy
from distillkit_builtin.weightings.position import Position
from distillkit_builtin.weightings.repetition import Repetition
from distillkit_builtin.weightings.skip_first import SkipFirst
from distillkit_builtin.weightings.special_tokens import SpecialTokens
from distillkit_builtin.weightings.truncated import Truncated

LOGPROB = st.floats(-20, 0, width=32)
TOKEN = st.tuples(LOGPROB, LOGPROB, st.sampled_from([0.0, 0.5, 1.25, 2.0]), st.booleans())
"""Sampling logprob, teacher logprob, entropy (with ties), and whether the policy sampled the token."""
STEP = st.lists(st.lists(TOKEN, min_size=1, max_size=8), min_size=1, max_size=5)
Tokens = Sequence[tuple[float, float, float, bool]]
ALL = [Position(), Entropy(), Entropy(by="gap"), Entropy(by="either", share=0.3), SkipFirst(tokens=2), SpecialTokens()]
ALL += [Repetition(), Truncated()]


def scored(tokens: Tokens, line: int = 1) -> ScoredRollout:
    ours, theirs, entropy, mask = (list(column) for column in zip(*tokens, strict=True))
    row = make_row(str(line), line=line)
    rollout = make_rollout([1] * len(tokens), ours, row=row, mask=[bool(keep) for keep in mask])
    values = np.where(mask, np.array(entropy, np.float32), np.float32(np.nan))
    return make_scored(replace(rollout, arrays={"entropy": values}), theirs, row=row)


def weighed(weighting: Weighting, step: Sequence[ScoredRollout]) -> list[list[float]]:
    """What counts: 0 where the policy did not sample the token, as the engine makes it."""
    return [
        np.where(each.rollout.active, array, 0).tolist()
        for each, array in zip(step, weighting.weigh(step), strict=True)
    ]


def of_ids(weighting: Weighting, *ids: Sequence[int], mask: Sequence[bool] | None = None) -> list[list[float]]:
    return weighed(weighting, [make_scored(rollout_of(each, mask), [-1.0] * len(each)) for each in ids])


def rollout_of(ids: Sequence[int], mask: Sequence[bool] | None = None) -> Rollout:
    return make_rollout(ids, mask=mask)


@given(tokens=st.lists(TOKEN, min_size=1, max_size=10), most=st.floats(1, 4))
def test_position_falls_as_the_gap_adds_up(tokens: Tokens, most: float) -> None:
    (found,) = weighed(Position(most=most), [scored(tokens)])
    gaps = [abs(theirs - ours) if keep else 0.0 for ours, theirs, _, keep in tokens]
    for at, (weight, (*_, keep)) in enumerate(zip(found, tokens, strict=True)):
        before = sum(gaps[:at]) / sum(gaps) if sum(gaps) else 0.0
        assert weight == pytest.approx((1 + (most - 1) * (1 - before)) if keep else 0.0, rel=1e-5, abs=1e-6)


def test_position_is_the_papers_default_and_flat_where_both_sides_agree() -> None:
    far = [(-1.0, -2.0, 0.0, True), (-1.0, -4.0, 0.0, True), (-1.0, -1.0, 0.0, True)]
    assert weighed(Position(), [scored(far)]) == [[1.5, 1.375, 1.0]]
    assert weighed(Position(), [scored([(-1.0, -1.0, 0.0, True)] * 3)]) == [[1.5, 1.5, 1.5]]


@pytest.mark.parametrize("by", ["entropy", "gap", "either"])
@given(step=STEP, share=st.floats(0.01, 1))
def test_entropy_keeps_a_share_of_the_whole_step(by: Any, step: list[Tokens], share: float) -> None:
    completions = [scored(tokens, line) for line, tokens in enumerate(step, start=1)]
    found = [weight for each in weighed(Entropy(by=by, share=share), completions) for weight in each]
    flat = [token for tokens in step for token in tokens]
    active = [at for at, token in enumerate(flat) if token[3]]
    if not active:
        return
    entropy = {at: flat[at][2] for at in active}
    gap = {at: abs(float(np.float32(flat[at][1]) - np.float32(flat[at][0]))) for at in active}
    scores = {"entropy": entropy, "gap": gap}.get(by) or soft_or(entropy, gap)
    kept = {at for at, weight in enumerate(found) if weight}
    assert len(kept) == max(1, round(share * len(active)))
    assert set(found) <= {0.0, 1.0}
    assert kept <= set(active)
    least = min(scores[at] for at in kept)
    assert all(scores[at] <= least + 1e-6 for at in active if at not in kept)
    if by != "either":  # whose scores are rounded, so that which are the same is not known here
        order = sorted(active, key=lambda at: (-scores[at], at))
        assert kept == set(order[: len(kept)])


def soft_or(entropy: dict[int, float], gap: dict[int, float]) -> dict[int, float]:
    high, far = scaled(entropy), scaled(gap)
    return {at: high[at] + far[at] - high[at] * far[at] for at in entropy}


def scaled(values: dict[int, float]) -> dict[int, float]:
    low, high = min(values.values()), max(values.values())
    return {at: (value - low) / (high - low) if high > low else 0.0 for at, value in values.items()}


def test_entropy_needs_the_samplers_entropy_unless_it_goes_by_the_gap() -> None:
    assert Entropy().sampler_needs() == {"entropy": 1}
    assert Entropy(by="either").sampler_needs() == {"entropy": 1}
    assert Entropy(by="gap").sampler_needs() == {}


def test_either_keeps_the_confident_token_that_is_wrong() -> None:
    tokens = [(-0.1, -0.1, 2.0, True), (-0.1, -9.0, 0.0, True), (-0.1, -0.2, 0.1, True), (-0.1, -0.1, 0.0, True)]
    assert weighed(Entropy(), [scored(tokens)]) == [[1.0, 0.0, 1.0, 0.0]]
    assert weighed(Entropy(by="either"), [scored(tokens)]) == [[1.0, 1.0, 0.0, 0.0]]


def test_skip_first_counts_what_the_policy_sampled() -> None:
    assert of_ids(SkipFirst(tokens=2), [1, 2, 3, 4], [5]) == [[0, 0, 1, 1], [0]]
    assert of_ids(SkipFirst(tokens=2), [1, 2, 3, 4], mask=[True, False, True, True]) == [[0, 0, 0, 1]]


def test_special_tokens_and_turn_ends_have_weights_of_their_own() -> None:
    end, *others = ByteTokenizer().special_tokens().values()
    special = others[0] if others else end
    run = replace(make_context(), stop_ids=(end, 65))
    weighting = SpecialTokens(weight=0.25, turn_end=3)
    asyncio.run(weighting.open(run))
    found = of_ids(weighting, [66, special, 67, end], [66, 65])
    assert found == [[1, 0.25 if others else 3, 1, 3], [1, 3]]
    asyncio.run((plain := SpecialTokens()).open(replace(run, stop_ids=())))
    assert of_ids(plain, [66, end]) == [[1, 0]]


@given(ids=st.lists(st.integers(0, 3), min_size=1, max_size=14), ngram=st.integers(1, 4))
def test_repetition_finds_what_stood_there_before(ids: list[int], ngram: int) -> None:
    (found,) = of_ids(Repetition(ngram=ngram, weight=0.5), ids)
    grams = [tuple(ids[at : at + ngram]) for at in range(len(ids) - ngram + 1)]
    again = [at for at, gram in enumerate(grams) if gram in grams[:at]]
    assert found == [0.5 if any(at <= place < at + ngram for at in again) else 1.0 for place in range(len(ids))]


def test_repetition_does_not_look_behind_a_mask() -> None:
    mask = [True, True, False, False, True, True]
    assert of_ids(Repetition(ngram=2), [1, 2, 1, 2, 3, 4], mask=mask) == [[1, 1, 0, 0, 1, 1]]
    assert of_ids(Repetition(ngram=2), [1, 2, 9, 9, 1, 2], mask=mask) == [[1, 1, 0, 0, 0, 0]]


def test_truncated_is_about_whole_completions() -> None:
    whole, cut = rollout_of([1, 2]), replace(rollout_of([1, 2, 3]), finish_reason="length")
    step = [make_scored(each, [-1.0] * len(each.token_ids)) for each in (whole, cut)]
    assert weighed(Truncated(), step) == [[1, 1], [0, 0, 0]]
    assert weighed(Truncated(weight=0.5), step) == [[1, 1], [0.5, 0.5, 0.5]]


@pytest.mark.parametrize("weighting", ALL, ids=lambda weighting: weighting.name)
def test_each_keeps_the_contract(weighting: Weighting) -> None:
    check_plugin(weighting)


def test_all_that_are_registered_are_tested_here() -> None:
    mine = {info.name for info in Registry.discover().infos("weighting") if info.distribution == "distillkit"}
    assert mine == {weighting.name for weighting in ALL}
