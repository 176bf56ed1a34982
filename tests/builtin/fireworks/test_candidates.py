"""The most probable tokens that a completion comes with."""

from types import SimpleNamespace
from typing import Any

import pytest

from distillkit.errors import AlignmentError
from distillkit_builtin.fireworks.candidates import top_arrays

ROWS = {"inference_topk_token_ids": [[1, 2], [3, 4], [5, 6]], "inference_topk_logprobs": [[-1.0, -2.0]] * 3}


def test_candidates_are_those_of_the_response_the_most_probable_first() -> None:
    rows = {**ROWS, "inference_topk_logprobs": [[-1.0, -2.0], [-3.0, -2.0], [-1.0, -1.5]]}
    found = top_arrays("this", SimpleNamespace(**rows), 3, slice(1, 3), 2)
    assert found["topk_ids"].tolist() == [[4, 3], [5, 6]]
    assert found["topk_logprobs"].tolist() == [[-2.0, -3.0], [-1.0, -1.5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inference_topk_token_ids": None, "inference_topk_logprobs": None}, "of a position are missing"),
        ({"inference_topk_token_ids": [[1, 2], [3, 4]]}, "of 2 positions came back for 3"),
        ({"inference_topk_token_ids": [[1, 2], [3], [5, 6]]}, "not as many top-k tokens as logprobs"),
        ({"inference_topk_token_ids": [[1, 2], [3, "4"], [5, 6]]}, "what came back as an id is not one"),
        (
            {
                "inference_topk_token_ids": [[1, 2], [3], [5, 6]],
                "inference_topk_logprobs": [[-1.0, -2.0], [-1], [-1, -2]],
            },
            "1 top-k tokens at token 0 where 2 were expected",
        ),
        ({"inference_topk_logprobs": [[-1.0, -2.0], [-1.0, 0.5], [-1.0, -2.0]]}, "at token 0 is 0.5"),
    ],
)
def test_what_is_no_top_k_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AlignmentError, match=f"^this: .*{message}"):
        top_arrays("this", SimpleNamespace(**{**ROWS, **change}), 3, slice(1, 3), 2)
