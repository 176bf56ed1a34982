"""Filters of templates that make turns of ShareGPT's, and a chat without its answer."""

from typing import Any

import pytest

from distillkit.data.row_format.row_template import compile_template
from distillkit.errors import RowError

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        (
            [{"from": "gtp", "value": "x"}],
            "turn 1 is from 'gtp', not one of system, developer, user, assistant, tool, hu",
        ),
        ([{"from": "human", "value": "x"}, {"from": "function_call", "value": "{}"}], "turn 2 is from 'function_call'"),
        ([{"from": "function_call", "value": "{}"}], "write a call as `tool_calls` of an assistant's message"),
        ([{"from": ["human"], "value": "x"}], "turn 1 is from ['human']"),
        ([{"role": "user", "content": "x"}], "turn 1 is no object with `from` and `value`"),
        ([{"from": "human", "value": "x", "content": "y"}], "turn 1 holds `role` or `content` too"),
        (["x"], "turn 1 is no object with `from` and `value`"),
        (None, "wants a list of turns, not a JSON null"),
    ],
)
def test_turns_of_sharegpt_that_are_none(turns: Any, message: str) -> None:
    with pytest.raises(RowError) as caught:
        compile_template("{{ turns | from_sharegpt }}", "k").of({"turns": turns})
    assert message in str(caught.value)


def test_turns_of_sharegpt() -> None:
    said = {"system": "S", "human": "H", "gpt": "G", "observation": "O"}
    turns = [{"from": who, "value": value, "weight": 1} for who, value in said.items()]
    found: Any = compile_template("{{ turns | from_sharegpt }}", "k").of({"turns": turns})
    assert [turn["role"] for turn in found] == ["system", "user", "assistant", "tool"]
    assert found[1] == {"role": "user", "content": "H", "weight": 1}


@pytest.mark.parametrize(
    ("turns", "left"), [([], 0), (TURNS, 1), (TURNS[:1], 1), ([*TURNS, TURNS[0]], 3), ([*TURNS, TURNS[1]], 2), ([1], 1)]
)
def test_a_chat_without_its_answer(turns: list[Any], left: int) -> None:
    assert compile_template("{{ turns | without_answer }}", "k").of({"turns": turns}) == turns[:left]
