"""What of a row decides which of its parts a template prints: rows that are alike in it need to be looked at once."""

import re
from collections.abc import Hashable, Mapping

from pydantic import JsonValue

from distillkit.data.tool_calls import function_of
from distillkit.prompt_check.prompt_parts import Part, names_no_parameter
from distillkit.prompt_check.row_value import Options
from distillkit.types import Message, Messages

Kind = tuple[Hashable, ...]
THINKING_ENDS = re.compile(r"</\S{0,12}think\S{0,4}>|\[/think\]|<\|end_think\w*\|>", re.IGNORECASE)
"""Where templates cut off what an assistant thought in an earlier turn."""
OPENING = re.compile(r"<\S{0,12}think\S{0,4}>|\[think\]|<\|start_think\w*\|>", re.IGNORECASE)


def kinds_of(messages: Messages) -> tuple[Kind, ...]:
    """The kind of each message: its role, the shape of its content, and what else it holds."""
    return tuple([_kind(message) for message in messages])


def _kind(message: Message) -> Kind:
    content = message.content
    shape: Hashable = bool(content) and not content.isspace()
    if "hink" in content or "HINK" in content:
        shape = _thinking(content)
    if not message.extra:
        return message.role, shape
    return message.role, shape, tuple((key, _shape(value)) for key, value in message.extra.items())


def _thinking(content: str) -> Hashable:
    """Whether there is something before the end of what was thought, and behind it."""
    end = THINKING_ENDS.search(content)
    if end is None:
        return True
    return bool(OPENING.sub("", content[: end.start()]).strip()), bool(content[end.end() :].strip())


def _shape(value: JsonValue) -> Hashable:
    """The type of a value and whether it holds something; of calls and tools, of each what it has."""
    if isinstance(value, list):
        return tuple(map(item_shape, value))
    return type(value).__name__, bool(value.strip() if isinstance(value, str) else value)


def item_shape(item: JsonValue) -> Hashable:
    """Which keys a call, a tool or a document has, and which of them hold something."""
    if not isinstance(item, dict):
        return type(item).__name__
    function = function_of(item)
    if not isinstance(function, dict):
        return tuple(item)
    inner = tuple((key, bool(value), names_no_parameter(key, value)) for key, value in function.items())
    return inner, tuple(item) if "function" in item else None


def options_shape(options: Mapping[str, JsonValue]) -> Hashable:
    """Which options a row has, and the values of those that are switches."""
    return tuple((name, value if isinstance(value, bool) else _shape(value)) for name, value in options.items())


def context_of(part: Part, messages: Messages, options: Options) -> Hashable:
    """What decides whether a template prints a part: its kind, its place, its neighbours, which options there are."""
    where, at = part.path[0], part.path[1] if len(part.path) > 1 else 0
    if where != "messages" or not isinstance(at, int):
        return part.kind, at, messages[0].role, messages[-1].role, tuple(options)
    behind = messages[at + 1 :]
    return (
        part.kind,
        _kind(messages[at])[:2],
        messages[at - 1].role if at else None,
        behind[0].role if behind else None,
        any(message.role == "user" for message in behind),
        tuple(options),
    )
