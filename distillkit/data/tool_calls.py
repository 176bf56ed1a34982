"""The calls of an assistant's message, in OpenAI's format, and the tools' answers to them.

Inside, arguments are objects, as chat templates expect them: a row may have them as JSON text, as OpenAI's API gives
them, and a template that prints JSON would then print a text in quotes.
"""

import json
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from distillkit.errors import RowError
from distillkit.files.strict_json import ContentError, json_type, parse_json, said_of_decoding, shortened
from distillkit.types import Message

A_CALL = '{"type": "function", "function": {"name": ..., "arguments": {...}}}'


def from_json_text(value: JsonValue, name: str) -> JsonValue:
    """What a text holds that is JSON, as tables have it whose columns are of one type; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except json.JSONDecodeError as error:
        raise RowError(name, f"is a text that is not JSON: {said_of_decoding(error)}") from error
    except ContentError as error:
        raise RowError(name, str(error)) from error


def without_nulls(value: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The keys that hold something: null is how OpenAI's clients and tables write a key that is not there."""
    return {key: item for key, item in value.items() if item is not None}


def is_given(value: JsonValue) -> bool:
    """Whether a field holds something: columns of text in a table have an empty one where others have null."""
    return value is not None and value != ""


def function_of(call: Mapping[str, JsonValue]) -> JsonValue:
    """Name and arguments of a call, or name and parameters of a tool: under `function`, or without that wrapping."""
    return call.get("function", dict(call))


def parse_tool_calls(value: JsonValue, name: str) -> list[JsonValue]:
    """A message's `tool_calls`, with arguments as objects. Raises RowError."""
    calls = from_json_text(value, name) if is_given(value) else []
    if not isinstance(calls, list):
        raise RowError(name, f"is a JSON {json_type(calls)}, not a list of {A_CALL}")
    parsed = [_parse_call(call, f"{name}[{i}]") for i, call in enumerate(calls)]
    ids = [call["id"] for call in parsed if "id" in call]
    twice = next((call_id for i, call_id in enumerate(ids) if call_id in ids[:i]), None)
    if twice is not None:
        raise RowError(name, f"has two calls with the id {_shown(twice)}; which one a tool answers is not said")
    return [*parsed]


def _parse_call(value: JsonValue, name: str) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise RowError(name, f"is a JSON {json_type(value)}, not {A_CALL}")
    call = {key: item for key, item in value.items() if is_given(item)}
    if call.get("type", "function") != "function":
        raise RowError(f"{name}.type", f"is {_shown(call['type'])}; only calls of functions are known")
    if not isinstance(call.get("id", ""), str):
        raise RowError(f"{name}.id", f"is a JSON {json_type(call['id'])}, not a text")
    wrapped = "function" in call
    function = function_of(call)
    where = f"{name}.function" if wrapped else name
    if not isinstance(function, dict):
        raise RowError(where, f'is a JSON {json_type(function)}, not {{"name": ..., "arguments": {{...}}}}')
    if not (isinstance(function.get("name"), str) and function["name"]):
        raise RowError(f"{where}.name", f"is {_shown(function.get('name'))}; a call is {A_CALL}")
    arguments = _parse_arguments(function.get("arguments"), f"{where}.arguments")
    function = {**without_nulls(function), "arguments": arguments}
    return {**call, "function": function} if wrapped else function


def _parse_arguments(value: JsonValue, name: str) -> JsonValue:
    """The arguments as an object; null and an empty text are how some write a call without any."""
    arguments = from_json_text(value, name) if is_given(value) else None
    if arguments is not None and not isinstance(arguments, dict):
        raise RowError(name, f"is a JSON {json_type(arguments)}, not an object")
    return arguments or {}


def calls_of(message: Message) -> list[dict[str, JsonValue]]:
    """The tool calls of a message; most have none."""
    calls = message.extra.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def require_answers_to_calls(messages: Iterable[Message], name: str) -> None:
    """Raise RowError for a tool's message whose `tool_call_id` is of no call before it."""
    known: list[JsonValue] = []
    without_id = False  # such a call may be answered under any id
    for i, message in enumerate(messages):
        for call in calls_of(message):
            known += [call["id"]] if "id" in call else []
            without_id = without_id or "id" not in call
        call_id = message.extra.get("tool_call_id")
        if call_id is not None and call_id not in known and not without_id:
            before = ", ".join(map(_shown, known[-5:])) or "none"
            raise RowError(
                f"{name}[{i}].tool_call_id", f"is {_shown(call_id)}, which answers no call; the calls before: {before}"
            )


def _shown(value: JsonValue) -> str:
    return shortened(repr(value), 60)
