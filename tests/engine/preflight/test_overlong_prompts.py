"""What is said of prompts that are too long for a side that reads less than its model could."""

import pytest

from distillkit.data.render import PromptSide, Renderer, RowIds
from distillkit.errors import InputError
from distillkit.preflight.overlong_prompts import OverlongPrompts, require_room
from distillkit.testing import ByteTokenizer

WHY = "teacher 't' reads sequences of at most 20 tokens here: beyond, it computes otherwise. Serve it over HTTP"


def renderer_of(max_completion_tokens: int) -> Renderer:
    """A student that reads 20 tokens by its own length, and a teacher that is limited to them."""
    side = PromptSide(ByteTokenizer(), {}, 20)
    return Renderer(side, {"t": PromptSide(ByteTokenizer(), {}, 20, WHY)}, max_completion_tokens)


def test_the_reason_is_said_for_the_side_that_a_prompt_is_too_long_for() -> None:
    for lengths, said in (((5, 15), 1), ((15, 5), 0), ((15, 15), 1)):
        prompts = OverlongPrompts(renderer_of(10))
        for place in ("rows.jsonl:1", "rows.jsonl:2"):
            prompts.add(place, RowIds([1] * lengths[0], {"t": [1] * lengths[1]}))
        assert prompts.advice(0).count(WHY) == said
    assert not OverlongPrompts(renderer_of(10)).advice(3)


def test_the_reason_is_said_where_completions_alone_are_too_long() -> None:
    require_room(renderer_of(19))
    limited = Renderer(renderer_of(1).teachers["t"], {}, 20)
    with pytest.raises(
        InputError, match=r"that the student reads; take fewer\. teacher 't' reads sequences of at most"
    ):
        require_room(limited)
