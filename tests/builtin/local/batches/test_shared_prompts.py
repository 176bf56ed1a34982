import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillkit.arrays import token_ids
from distillkit_builtin.local.batches.shared_prompts import DistinctPrompts, common_prefix_length

PROMPTS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=20)


@given(PROMPTS)
def test_equal_prompts_are_grouped_in_the_order_of_the_first(given_prompts: list[list[int]]) -> None:
    prompts = [token_ids(prompt) for prompt in given_prompts]
    distinct = DistinctPrompts.of(prompts)
    assert [tuple(prompt) for prompt in distinct.prompts] == list(dict.fromkeys(map(tuple, given_prompts)))
    assert [distinct.prompts[row].tolist() for row in distinct.row_of] == given_prompts
    for row, members in enumerate(distinct.members):
        assert members == [i for i, other in enumerate(distinct.row_of) if other == row]


def test_only_equal_lengths_are_equal_prompts() -> None:
    zeros = [np.zeros(length, dtype=np.int64) for length in (1, 2, 1)]
    assert DistinctPrompts.of(zeros).row_of == [0, 1, 0]


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        ([[1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2, 4, 5]], 2),
        ([[1, 2], [1, 2, 4, 5]], 1),
        ([[9, 2], [1, 2]], 0),
        ([[1], [1, 2]], 0),
    ],
)
def test_the_last_token_of_a_prompt_is_never_shared(prompts: list[list[int]], shared: int) -> None:
    assert common_prefix_length([token_ids(prompt) for prompt in prompts]) == shared
