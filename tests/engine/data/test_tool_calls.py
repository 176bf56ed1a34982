"""OpenAI's tool format: every way to write the same call is the same message, and what is none is refused in words."""

import json
from typing import Any

import pytest
from helpers.rows import row_of

from distillkit.errors import RowError
from distillkit.types import Messages

ARGUMENTS = {"city": "Paris", "days": [1, 2.5, None], "é": {"deep": True}}
USER = {"role": "user", "content": "weather?"}


def call(arguments: Any = ARGUMENTS, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "w", "arguments": arguments}, **more}


def assistant(*calls: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [*calls], **more}


def answer(call_id: str | None = None) -> dict[str, Any]:
    return {"role": "tool", "content": "sun", **({} if call_id is None else {"tool_call_id": call_id})}


def parsed(*messages: dict[str, Any]) -> Messages:
    return row_of(json.dumps({"messages": [USER, *messages]}).encode()).messages


def refusal(*messages: dict[str, Any]) -> str:
    with pytest.raises(RowError) as caught:
        parsed(*messages)
    return str(caught.value)


PLAIN = (assistant(call(id="c1"), content=""), answer("c1"))


@pytest.mark.parametrize(
    "same",
    [
        assistant(call(id="c1")),
        assistant(call(id="c1"), content=None),
        assistant(call(id="c1"), content=[]),
        assistant(call(id="c1"), content=[{"type": "text", "text": ""}]),
        assistant(call(id="c1"), content="", refusal=None, audio=None, function_call=None, name=None),
        assistant(call(json.dumps(ARGUMENTS), id="c1")),
        assistant(call(json.dumps(ARGUMENTS, separators=(",", ":"), ensure_ascii=False), id="c1", index=None)),
        {"role": "assistant", "tool_calls": json.dumps([call(id="c1")])},
    ],
)
def test_a_call_is_the_same_message_however_it_is_written(same: dict[str, Any]) -> None:
    assert parsed(same, PLAIN[1]) == parsed(*PLAIN)
    (made,) = json.loads(json.dumps(parsed(same, PLAIN[1])[1].extra["tool_calls"]))
    assert made == call(id="c1")


@pytest.mark.parametrize("nothing", ["", "{}", {}, None, " {} ", "null"])
def test_a_call_without_arguments_has_an_empty_object(nothing: Any) -> None:
    (made,) = json.loads(json.dumps(parsed(assistant(call(nothing)), answer())[1].extra["tool_calls"]))
    assert made == call({})


def test_a_call_may_stand_without_its_wrapping() -> None:
    (made,) = json.loads(
        json.dumps(parsed(assistant({"name": "w", "arguments": "{}"}), answer())[1].extra["tool_calls"])
    )
    assert made == {"name": "w", "arguments": {}}


@pytest.mark.parametrize("nothing", [[], None, "[]", ""])
def test_no_calls_are_as_if_the_key_were_not_there(nothing: Any) -> None:
    said = {"role": "assistant", "content": "hello"}
    assert parsed({**said, "tool_calls": nothing}, USER) == parsed(said, USER)


def test_an_empty_id_is_none() -> None:
    both = assistant(call(id=""), call(id="", type=""))
    assert parsed(both, answer(""), answer("")) == parsed(assistant(call(), call(type=None)), *([answer(None)] * 2))


def test_parallel_calls_and_their_answers_in_any_order() -> None:
    both = assistant(call(id="a"), call(id="b"))
    assert len(parsed(both, answer("b"), answer("a"))) == 4
    assert len(parsed(both, answer("b"), answer("a"), both, answer("a"), answer("b"))) == 7  # ids of another turn
    assert len(parsed(assistant(call()), answer("anything"))) == 3  # a call without an id


def test_thoughts_alone_need_no_content() -> None:
    assert parsed({"role": "assistant", "reasoning_content": "hm"}, USER)[1].content == ""


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([assistant(call("not json"))], "[1].tool_calls[0].function.arguments: is a text that is not JSON: Expecting"),
        ([assistant(call("[1]"))], "[1].tool_calls[0].function.arguments: is a JSON array, not an object"),
        ([assistant(call(7))], "[1].tool_calls[0].function.arguments: is a JSON number, not an object"),
        ([assistant(call('{"a": 1, "a": 2}'))], "[1].tool_calls[0].function.arguments: holds the key 'a' twice"),
        ([assistant(call('{"a": NaN}'))], "[1].tool_calls[0].function.arguments: holds NaN"),
        ([assistant({"type": "function"})], "[1].tool_calls[0].name: is None; a call is {"),
        ([assistant({"function": {"arguments": {}}})], "[1].tool_calls[0].function.name: is None; a call is {"),
        ([assistant({"function": "w"})], '[1].tool_calls[0].function: is a JSON string, not {"name"'),
        ([assistant("w")], '[1].tool_calls[0]: is a JSON string, not {"type"'),
        ([assistant(call(id=3))], "[1].tool_calls[0].id: is a JSON number, not a text"),
        ([assistant(call(type="custom"))], "[1].tool_calls[0].type: is 'custom'; only calls of functions"),
        ([{"role": "assistant", "tool_calls": {}}], "[1].tool_calls: is a JSON object, not a list of"),
        ([assistant(call(id="a"), call(id="a"))], "[1].tool_calls: has two calls with the id 'a'"),
        ([{**USER, "tool_calls": [call()]}], "[1].tool_calls: stands in a message of role 'user'; only"),
        (
            [assistant(call(id="a")), answer("b")],
            "[2].tool_call_id: is 'b', which answers no call; the calls before: 'a'",
        ),
        (
            [answer("b"), assistant(call(id="b")), USER],
            "[1].tool_call_id: is 'b', which answers no call; the calls before: none",
        ),
        ([{"role": "assistant", "function_call": {}}], "[1].function_call: is the form before `tool_calls`; write"),
        ([{"role": "assistant", "content": None}, USER], "[1].content: is a JSON null, not text"),
        ([{"role": "assistant", "refusal": "no"}, USER], "[1].content: is missing"),
        ([{"role": "tool", "tool_call_id": "a"}], "[1].content: is missing"),
        (
            [{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}],
            '[1].content[0]: is not {"type": "text"',
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a", "image_url": "u"}]}],
            "[1].content[0]: holds 'image_url' beside its text; take it out",
        ),
        ([{"role": "function", "content": "x"}], "not one of system, developer, user, assistant, tool; write 'tool'"),
        ([{"role": "gpt", "content": "x"}], "tool; write 'assistant'"),
        ([{"role": ["user"], "content": "x"}], "[1].role: is ['user'], not one of"),
    ],
)
def test_what_is_no_call_and_no_answer_is_refused_in_words(messages: list[dict[str, Any]], message: str) -> None:
    assert message in refusal(*messages)
