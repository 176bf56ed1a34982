"""A tool call's arguments as a chat template takes them: most print an object as JSON, some print what they are given.

transformers asks for an object, OpenAI's API gives JSON text. A template that prints JSON makes of a text one in
quotes; one that prints what it gets makes of an object Python's notation, or refuses it.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from distillkit.errors import RowError

Turns = list[dict[str, Any]]


def has_calls(chat: Turns) -> bool:
    """Whether a message of the chat has tool calls; nearly all have none."""
    return any("tool_calls" in message for message in chat)


def with_json_arguments(
    chat: Turns, prompt: str | RowError, render: Callable[[Turns], str | RowError]
) -> str | RowError:
    """The prompt of a chat with tool calls: `prompt`, or what `render` makes of texts if objects do not become JSON."""
    arguments = [function["arguments"] for message in chat for function in _functions(message)]
    if isinstance(prompt, str) and not any(str(each) in prompt and str(each) != _as_json(each) for each in arguments):
        return prompt
    of_texts = render([_with_texts(message) for message in chat])
    if isinstance(of_texts, str) and all(_as_json(each) in of_texts for each in arguments):
        return of_texts
    if isinstance(prompt, RowError):
        return prompt
    return RowError(
        "messages",
        "the chat template writes the arguments of tool calls as no JSON, neither given as an object nor as text; mend "
        "it (`arguments | tojson`), or take the calls out",
    )


def _functions(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Name and arguments of each call whose arguments are an object, with or without the wrapping `function`."""
    for call in message.get("tool_calls", ()):
        function = call.get("function", call)
        if isinstance(function.get("arguments"), dict):
            yield function


def _as_json(arguments: dict[str, Any]) -> str:
    """JSON as the templates' own filter `tojson` writes it."""
    return json.dumps(arguments, ensure_ascii=False)


def _with_texts(message: dict[str, Any]) -> dict[str, Any]:
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": [_with_text(call) for call in message["tool_calls"]]}


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    if isinstance(call.get("function"), dict):
        return {**call, "function": _with_text(call["function"])}
    arguments = call.get("arguments")
    return {**call, "arguments": _as_json(arguments)} if isinstance(arguments, dict) else call
