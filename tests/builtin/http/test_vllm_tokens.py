"""What vLLM's token interface is asked for, and what is no answer of it."""

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback.openai.wire import PROMPT

from builtin.http.serving import RESPONSE, token_answer
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError
from distillkit_builtin.http.dialects.dialect import ScoreQuery, parse_scores
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens

ASKED = ScoreQuery("m", token_ids([1, 2]), token_ids([3, 4]), at_ids=np.array([[5, -1], [6, 7]]))
ENCODED = "prompt_token_id_logprobs"
GOOD = [[-1.0, -2.0, 9.0], [-3.0, -np.inf, -0.5]]
"""What stands where an id is none does not matter; an id may have no probability."""


def test_rows_are_read_by_column_in_the_order_that_was_asked_for() -> None:
    assert VllmTokens().payload(ASKED)["sampling_params"]["prompt_logprob_token_ids"] == [[3, 5, -1], [4, 6, 7]]  # type: ignore[index,call-overload]
    for body in (token_answer(GOOD), token_answer(np.asfortranarray(GOOD))):
        scored = VllmTokens().parse(body, ASKED)
        assert scored.logprobs.tolist() == [-1.0, -3.0]
        assert scored.ids.tolist() == [3, 4]
        assert scored.at_logprobs is not None
        assert scored.at_logprobs.tolist() == [[-2.0, -np.inf], [-np.inf, -0.5]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "ignores prompt_logprob_token_ids"),
        ({ENCODED: None}, "ignores prompt_logprob_token_ids"),
        (token_answer(GOOD) | {ENCODED: "?"}, "no such array"),
        (token_answer(GOOD) | {ENCODED: base64.b64encode(b"no array").decode()}, "no such array"),
        (token_answer(GOOD) | {ENCODED: token_answer(GOOD)[ENCODED][:-8]}, "no such array"),
        (token_answer(GOOD[:1]), r"<f4 \(1, 3\), not <f4 \(2, 3\)"),
        (token_answer([row[:2] for row in GOOD]), r"\(2, 2\), not <f4 \(2, 3\)"),
        (token_answer(GOOD, np.float64), "it is <f8"),
        (token_answer([GOOD[0], [-3.0, np.nan, -0.5]]), "the logprob of id 6 at token 1 is nan"),
        (token_answer([GOOD[0], [-3.0, -1.0, 0.5]]), "the logprob of id 7 at token 1 is 0.5"),
        (token_answer([[-np.inf, -2.0, 0.0], GOOD[1]]), "token 0 is minus infinity"),
        (token_answer(GOOD) | {"model": "other"}, "the response is of model 'other', not of 'm'"),
        (token_answer(GOOD) | {"prompt_token_ids": None}, "the server ignores return_token_ids"),
        (token_answer(GOOD) | {"prompt_token_ids": [1, 2, 3]}, "3 prompt_token_ids where 4 were expected"),
        (token_answer(GOOD) | {"prompt_token_ids": [9, 2, 3, 4]}, "the server read id 9 as prompt token 0, 1 was sent"),
    ],
)
def test_what_is_no_array_of_logprobs_is_refused(body: Any, message: str) -> None:
    with pytest.raises(AlignmentError, match=message):
        parse_scores(VllmTokens(), body, ASKED, "this")


HEADER = base64.b64decode(token_answer(GOOD)[ENCODED])


@given(at=st.integers(0, len(HEADER) - 1), bytes_there=st.binary(max_size=3), rest=st.binary(max_size=8))
def test_any_bytes_are_an_array_of_logprobs_or_refused(at: int, bytes_there: bytes, rest: bytes) -> None:
    raw = HEADER[:at] + bytes_there + HEADER[at + len(bytes_there) :] + rest
    body: Any = token_answer(GOOD) | {ENCODED: base64.b64encode(raw).decode()}
    try:
        scored = VllmTokens().parse(body, ASKED)
    except AlignmentError:
        return
    assert scored.at_logprobs is not None
    assert scored.at_logprobs.shape == (2, 2)
    assert (scored.at_logprobs <= 0.01).all()


def test_only_the_prompts_last_token_and_the_response_are_scored() -> None:
    query = ScoreQuery("m", token_ids(PROMPT), token_ids(RESPONSE))
    payload: Any = VllmTokens().payload(query)
    assert payload["sampling_params"]["prompt_logprob_start"] == len(PROMPT) - 1
    assert payload["sampling_params"]["prompt_logprob_token_ids"] == [[index] for index in RESPONSE]
    assert payload["token_ids"] == PromptLogprobs().payload(query)["prompt"]
