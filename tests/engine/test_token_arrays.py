"""Tables of samplers and scorers: what is no number at an active token is refused by the name of who gave it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from distillkit.arrays import Array
from distillkit.errors import AlignmentError
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.testing import make_rollout
from distillkit.token_arrays import NO_ID, known_topk

IDS = np.array([[4, 2], [3, NO_ID], [1, 0]])
LOGPROBS = np.array([[-0.5, -1.0], [-0.1, -np.inf], [-1.0, -2.0]], np.float32)
ENTROPY = np.array([1.0, 0.5, 2.0], np.float32)


def changed(array: Array, value: Any, at: Any = (1, 0)) -> Array:
    other = array.astype(type(value)) if array.dtype.kind == "i" and isinstance(value, float) else array.copy()
    other[at] = value
    return other


def rollout(mask: Any = None, wanted: Any = None, **arrays: Array) -> Rollout:
    made = make_rollout([5, 6, 7], [-1.0, -1.0, -1.0])
    return replace(made, request=replace(made.request, wanted=wanted or {}), mask=mask, arrays=arrays)


def score(mask: Any = None, **arrays: Array) -> Score:
    asked = IDS if "at_logprobs" in arrays else None
    request = ScoreRequest(rollout(mask), "t", np.array([1]), topk=2 if "topk_ids" in arrays else 0, at_ids=asked)
    return Score(request, request.rollout.logprobs, None, arrays=arrays)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"topk_ids": IDS, "topk_logprobs": changed(LOGPROBS, np.nan)}, "topk_logprobs of token 1 holds nan"),
        ({"topk_ids": IDS, "topk_logprobs": changed(LOGPROBS, 0.5)}, "topk_logprobs of token 1 holds 0.5"),
        ({"topk_ids": changed(IDS, 0.5), "topk_logprobs": LOGPROBS}, "topk_ids are of float64"),
        ({"at_logprobs": changed(LOGPROBS, np.nan)}, "at_logprobs of token 1 holds nan"),
    ],
)
def test_a_score_refuses_tables_that_hold_no_logprobs(arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(AlignmentError, match=f"score of .* by teacher 't': {message}"):
        score(**arrays)
    if "ids" not in message:
        score(np.array([True, False, True]), **arrays)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_rollout_refuses_an_entropy_that_is_no_number(bad: float) -> None:
    wanted = {"entropy": 1}
    with pytest.raises(AlignmentError, match=f"entropy of token 1 holds {bad}, not a finite number"):
        rollout(wanted=wanted, entropy=changed(ENTROPY, bad, 1))
    rollout(np.array([True, False, True]), wanted, entropy=changed(ENTROPY, bad, 1))


def test_minus_infinity_is_the_logprob_of_what_is_none() -> None:
    assert score(topk_ids=IDS, topk_logprobs=LOGPROBS, at_logprobs=LOGPROBS).arrays["at_logprobs"][1, 1] == -np.inf
    assert rollout(wanted={"topk": 2}, topk_ids=IDS, topk_logprobs=LOGPROBS).arrays["topk_ids"].tolist() == IDS.tolist()


def test_ids_that_the_tokenizer_lacks_are_none_of_the_top_k() -> None:
    arrays = {"topk_ids": IDS, "topk_logprobs": LOGPROBS, "other": ENTROPY}
    found = known_topk(arrays, 3)
    assert found["topk_ids"].tolist() == [[NO_ID, 2], [NO_ID, NO_ID], [1, 0]]
    assert found["topk_logprobs"].tolist() == [[-np.inf, -1.0], [-np.inf, -np.inf], [-1.0, -2.0]]
    assert found["other"] is ENTROPY
    assert known_topk(arrays, 5) is arrays
    assert known_topk(arrays, None) is arrays
