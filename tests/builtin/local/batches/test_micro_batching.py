import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from distillkit_builtin.local.batches.micro_batching import (
    LARGE_ENOUGH,
    MAX_PADDING,
    balanced_shares,
    packed_micro_batches,
    padded_micro_batches,
)
from distillkit_builtin.local.model.causal_lm import PromptAndResponse

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=40)


@given(st.lists(st.integers(1, 300), max_size=30), st.integers(1, 5000))
def test_micro_batches_hold_each_item_once_and_keep_to_the_limit(lengths: list[int], limit: int) -> None:
    groups = padded_micro_batches(lengths, limit)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * max(lengths[i] for i in group)
        assert len(group) == 1 or padded <= limit
        assert padded <= LARGE_ENOUGH or padded - sum(lengths[i] for i in group) <= MAX_PADDING * padded


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 90)), min_size=1, max_size=40), st.integers(1, 300))
def test_packed_batches_hold_each_item_once_and_keep_to_the_limit(sizes: list[tuple[int, int]], limit: int) -> None:
    some = [PromptAndResponse(np.zeros(p, dtype=np.int64), np.zeros(r, dtype=np.int64)) for p, r in sizes]
    groups = packed_micro_batches(some, limit)
    assert sorted(i for group in groups for i in group) == list(range(len(some)))
    assert all(len(group) == 1 or sum(len(some[i]) for i in group) <= limit for group in groups)


def test_completions_of_one_prompt_are_trained_together_as_far_as_they_fit() -> None:
    prompts = [np.full(4, i, dtype=np.int64) for i in range(3)]
    some = [PromptAndResponse(prompts[i % 3], np.zeros(6, dtype=np.int64)) for i in range(9)]
    assert packed_micro_batches(some, 30) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert sorted(map(len, packed_micro_batches(some, 20))) == [1, 2, 2, 2, 2]


@given(LENGTHS, st.integers(1, 8))
def test_balanced_groups_differ_by_one_item_at_most(lengths: list[int], parts: int) -> None:
    groups = balanced_shares(lengths, parts)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in group) for group in groups]
    assert max(sums) - min(sums) <= max(lengths)
