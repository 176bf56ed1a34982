import math

import numpy as np
import pytest

from distillkit.diagnosis.scored_tokens import estimate, scored_tokens
from engine.diagnosis.completions import completion


def scores(*completions):
    return [score for scored in completions for score in scored.scores.values()]


def test_a_mean_and_its_error_by_rows() -> None:
    # Rows of two tokens and of one: m = (1 + 3 + 5) / 3 = 3; residuals of the rows 4 - 6 = -2 and 5 - 3 = 2;
    # SE^2 = 2 / 1 * (4 + 4) / 9 = 16 / 9.
    found = estimate(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1]))
    assert found is not None
    assert found.value == pytest.approx(3)
    assert found.standard_error == pytest.approx(4 / 3)


def test_the_error_of_rows_of_one_token_is_the_ordinary_one() -> None:
    values = np.array([0.0, 1.0, 5.0, 2.0])
    found = estimate(values, np.arange(4))
    assert found is not None
    assert found.standard_error == pytest.approx(values.std(ddof=1) / 2)


def test_saying_each_token_again_adds_no_knowledge() -> None:
    generator = np.random.default_rng(0)
    values, rows = generator.normal(size=60), np.repeat(np.arange(12), 5)
    once, often = estimate(values, rows), estimate(np.repeat(values, 7), np.repeat(rows, 7))
    assert once is not None
    assert often is not None
    assert often.standard_error == pytest.approx(once.standard_error)


def test_the_error_is_that_of_dependent_tokens() -> None:
    """Rows that differ by themselves: taking tokens as independent would say a sixth of the true error."""
    generator = np.random.default_rng(1)
    rows = np.repeat(np.arange(40), 50)
    samples = [generator.normal(size=40)[rows] + generator.normal(size=2000) for _ in range(200)]
    found = [estimate(values, rows) for values in samples]
    true = np.std([values.mean() for values in samples])
    said = np.mean([each.standard_error for each in found if each is not None])
    assert 0.8 < said / true < 1.2


def test_of_one_row_no_error_is_known_and_of_no_token_no_mean() -> None:
    alone = estimate(np.array([1.0, 2.0]), np.array([3, 3]))
    assert alone is not None
    assert alone.standard_error is None
    assert alone.error == math.inf
    assert estimate(np.empty(0), np.empty(0, np.int64)) is None


def test_completions_of_one_row_are_one_cluster() -> None:
    tokens = scored_tokens(scores(completion([1, 2]), completion([3], sample=1), completion([4], 2)))
    assert tokens.rows.tolist() == [0, 0, 0, 1]
    assert tokens.completions == 3
    gap = tokens.reverse_kl()
    assert gap is not None
    assert gap.value == pytest.approx(-2.5)


def test_masked_tokens_count_for_their_place_and_nothing_else() -> None:
    masked = completion([1, 2, 3, 4], ids=[70, 71, 72, 73], mask=[True, False, True, False])
    tokens = scored_tokens(scores(masked))
    assert tokens.ids.tolist() == [70, 72]
    assert tokens.advantages.tolist() == [1, 3]
    assert tokens.places.tolist() == [0.125, 0.625]
    assert not tokens.ends.any()  # the last token was not the policy's


@pytest.mark.parametrize(
    ("count", "pieces", "parts"),
    [
        (10, 10, list(range(10))),
        (20, 10, [part for part in range(10) for _ in range(2)]),
        (2, 10, [2, 7]),
        (1, 3, [1]),
        (3, 3, [0, 1, 2]),
        (30, 3, [0] * 10 + [1] * 10 + [2] * 10),
    ],
)
def test_a_token_stands_in_the_part_that_holds_its_middle(count: int, pieces: int, parts: list[int]) -> None:
    assert scored_tokens(scores(completion([1.0] * count))).part(pieces).tolist() == parts


def test_an_end_is_the_last_token_of_what_was_not_cut() -> None:
    tokens = scored_tokens(scores(completion([1, 2]), completion([3, 4], 2, finish="length")))
    assert tokens.ends.tolist() == [False, True, False, False]


def test_nothing_is_no_tokens() -> None:
    tokens = scored_tokens([])
    assert len(tokens.advantages) == 0
    assert tokens.reverse_kl() is None
