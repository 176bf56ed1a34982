"""What becomes of the logprobs that Tinker's SDK returns of a prompt: the response's, or an error that says which."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distillkit.errors import AlignmentError
from distillkit.token_arrays import id_table
from distillkit_builtin.tinker.scored_response import Asked, leading_nones, read_response

RESPONSE = np.array([7, 8, 9])
ROWS = [-0.5, -1.0, -2.0, -3.0]
"""Of the second prompt token, and of the response."""


def asked(**more: Any) -> Asked:
    return Asked(2, RESPONSE, **more)


def answer(logprobs: Any, topk: Any = None, targets: Any = None) -> Any:
    return SimpleNamespace(prompt_logprobs=logprobs, topk_prompt_logprobs=topk, target_prompt_logprobs=targets)


def tensor(rows: Any, **other: Any) -> Any:
    table = np.array(rows, np.float32)
    fields = {"data": table.ravel().tolist(), "shape": [*table.shape], "sparse_crow_indices": None}
    return SimpleNamespace(**{**fields, **other})


def test_both_alignments_are_told_apart_by_length() -> None:
    assert leading_nones([None, *ROWS], 5) == 1
    assert leading_nones(ROWS, 5) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "no logprobs of the prompt came back"),
        (ROWS[1:], "3 logprobs came back for 5 tokens"),
        ([None, None, *ROWS], "6 logprobs came back for 5 tokens"),
        ([-9.0, *ROWS], "the first of 5 tokens has a logprob"),
    ],
)
def test_another_alignment_is_refused(values: Any, message: str) -> None:
    with pytest.raises(AlignmentError, match=message):
        leading_nones(values, 5)


@pytest.mark.parametrize(("values", "leading"), [([None, *ROWS], 1), (ROWS, 0), ([None, None, *ROWS[1:]], 1)])
def test_the_response_is_the_last_entries_in_both(values: Any, leading: int) -> None:
    found = read_response("score", answer(values), asked(), leading)
    assert found.logprobs.tolist() == [-1.0, -2.0, -3.0]
    assert not found.arrays


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "no logprobs of the prompt"),
        ([None, *ROWS[:-1]], "logprobs of 4 tokens came back where 5 were expected"),
        (ROWS, "logprobs of 4 tokens came back where 5 were expected"),
        ([None, -0.5, -1.0, None, -3.0], "the logprob of token 1 is missing"),
        ([None, -0.5, -1.0, float("nan"), -3.0], "the logprob of token 1 is nan"),
        ([None, -0.5, -1.0, -2.0, float("-inf")], "the logprob of token 2 is -inf"),
        ([None, -0.5, -1.0, -2.0, -9999.0], "the logprob of token 2 is -9999"),
        ([None, -0.5, 0.5, -2.0, -3.0], "the logprob of token 0 is 0.5"),
        ([None, -0.5, False, -2.0, -3.0], "the logprob of token 0 is False"),
    ],
)
def test_what_is_missing_or_no_logprob_is_refused_and_never_padded(values: Any, message: str) -> None:
    with pytest.raises(AlignmentError, match=f"^score: {message}"):
        read_response("score", answer(values), asked(), 1)


TOP = [None, [(1, -1.0)], [(5, -2.0), (7, -1.0)], [(8, -2.0), (4, -1.5)], [(2, -0.1), (3, -0.2)]]


def test_the_top_k_are_those_of_the_response_the_most_probable_first() -> None:
    found = read_response("score", answer([None, *ROWS], TOP), asked(topk=2), 1).arrays
    assert found["topk_ids"].tolist() == [[7, 5], [4, 8], [2, 3]]
    np.testing.assert_allclose(found["topk_logprobs"], [[-1.0, -2.0], [-1.5, -2.0], [-0.1, -0.2]], rtol=1e-6)


@pytest.mark.parametrize(
    ("topk", "message"),
    [
        (None, "no top-k tokens of the prompt came back"),
        (TOP[1:], "top-k tokens of 4 tokens came back where 5"),
        ([*TOP[:3], None, TOP[4]], "the top-k tokens at token 1 are missing"),
        ([*TOP[:4], [(2, -0.1)]], "holds 1 top-k tokens at token 2 where 2 were expected"),
        ([*TOP[:4], [(2, -0.1), (2, -0.2)]], "id 2 twice"),
        ([*TOP[:4], [(2, -0.1), ("3", -0.2)]], "the id of a top-k token is not one"),
        ([*TOP[:4], [(2, -0.1), (9, -0.2)]], "token 2 among the top-k tokens is 2.80 nats from"),
    ],
)
def test_what_is_no_top_k_is_refused(topk: Any, message: str) -> None:
    with pytest.raises(AlignmentError, match=f"^score: .*{message}"):
        read_response("score", answer([None, *ROWS], topk), asked(topk=2), 1)


IDS = id_table("a test", [[7, 1], [2, -1], [-1, 9]], 3)


def test_targets_ask_for_nothing_before_the_response() -> None:
    targets = asked(at_ids=IDS).targets
    assert targets is not None
    assert targets.tolist() == [[-1, -1], [7, 1], [2, -1], [-1, 9]]


def test_what_stands_for_not_asked_is_no_probability_of_one() -> None:
    given = tensor([[0, 0], [-1, -4], [-5, 0], [0, -3]])
    found = read_response("score", answer([None, *ROWS], targets=given), asked(at_ids=IDS), 1).arrays
    assert found["at_logprobs"].tolist() == [[-1, -4], [-5, -np.inf], [-np.inf, -3]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "no logprobs of given ids came back"),
        (tensor([[-1, -4], [-5, 0], [0, -3]]), r"came back as \[3, 2\], not as a full \[4, 2\]"),
        (tensor([[0, 0], [-1, -4], [-5, 0], [0, -3]], sparse_crow_indices=[0, 0]), "not as a full"),
        (tensor([[0, 0], [-1, np.nan], [-5, 0], [0, -3]]), "the logprob of id 1 at token 0 is nan"),
        (tensor([[0, 0], [-1, -4], [0.5, 0], [0, -3]]), "the logprob of id 2 at token 1 is 0.5"),
        (tensor([[-1, -4], [-5, 0], [0, -3], [0, 0]]), "token 0 among the given ids is 4.00 nats from"),
    ],
)
def test_what_is_no_table_of_the_given_ids_is_refused(given: Any, message: str) -> None:
    with pytest.raises(AlignmentError, match=f"^score: .*{message}"):
        read_response("score", answer([None, *ROWS], targets=given), asked(at_ids=IDS), 1)
