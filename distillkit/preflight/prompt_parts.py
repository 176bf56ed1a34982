"""The parts of a prompt: each is a place in the messages or options, and the same prompt with something else there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from distillkit.data.tool_calls import function_of
from distillkit.preflight.changed_value import other_end, other_object, other_text, other_value
from distillkit.types import Message, Messages

Options = Mapping[str, JsonValue]
SAME_ROLES = ({"system", "developer"}, {"assistant"}, {"tool"}, {"system"}, {"developer"})
"""Roles that are two names of one thing, and each with itself."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a row holds, and the row with something else in its place."""

    place: str
    """Where in the row: behind the field of the messages, or the field itself for an option."""
    kind: str
    """What a note calls all parts of its kind."""
    needed: bool
    """Whether the prompt is another one without it; else it is what templates may well leave out."""
    messages: Messages
    options: Options


def parts_of_message(messages: Messages, at: int, options: Options) -> Iterator[Part]:
    """What the message at `at` holds."""
    message = messages[at]

    def part(place: str, kind: str, other: Message, *, needed: bool = False) -> Part:
        changed = (*messages[:at], other, *messages[at + 1 :])
        return Part(f"[{at}].{place}", kind, needed, changed, options)

    content = message.content
    if content.strip():
        of = f"content of a message of role {message.role!r}"
        yield part("content", f"the {of}", replace(message, content=other_text(content)), needed=True)
        if len(content.strip()) > 1:
            yield part("content", f"the beginning of the {of}", replace(message, content=other_end(content, 0)))
            yield part("content", f"the end of the {of}", replace(message, content=other_end(content, -1)))
    for role in _other_roles(messages, at):
        kind = f"whether a message is of role {message.role!r} or {role!r}"
        yield part("role", kind, replace(message, role=role))
    for key, value in message.extra.items():
        if key == "tool_calls" and isinstance(value, list):
            for place, kind, needed, calls in _parts_of_calls(value):
                yield part(place, kind, replace(message, extra={**message.extra, key: calls}), needed=needed)
        elif (other := other_value(value)) != value:
            kind = f"`{key}` of a message of role {message.role!r}"
            yield part(key, kind, replace(message, extra={**message.extra, key: other}))


def _other_roles(messages: Messages, at: int) -> list[str]:
    """Roles beside the message's own that it is to be told from; calls tell an assistant from all others."""
    message = messages[at]
    if message.role == "user" or "tool_calls" in message.extra:
        return []
    return [role for role in sorted({other.role for other in messages}) if {role, message.role} not in SAME_ROLES]


def _parts_of_calls(calls: Sequence[JsonValue]) -> Iterator[tuple[str, str, bool, list[JsonValue]]]:
    for at, call in enumerate(calls):
        if isinstance(call, dict):
            for path, needed, changed in _parts_of_function(call, ("name", "arguments")):
                yield f"tool_calls[{at}].{path}", f"`tool_calls[].{path}`", needed, _with(calls, at, changed)


def _parts_of_function(
    value: Mapping[str, JsonValue], needed: Sequence[str]
) -> Iterator[tuple[str, bool, dict[str, JsonValue]]]:
    """Of a call or a tool: what its function holds, and what stands beside that."""
    function = function_of(value)
    if not isinstance(function, dict):
        return
    wrapped = "function" in value
    for key, item in function.items():
        if key != "type" and (other := other_object(item)) != item:
            changed = {**function, key: other}
            path = f"function.{key}" if wrapped else key
            yield path, key in needed, {**value, "function": changed} if wrapped else changed
    for key, item in value.items() if wrapped else ():
        if key not in ("type", "function") and (other := other_value(item)) != item:
            yield key, False, {**value, key: other}


def parts_of_option(name: str, at: int, messages: Messages, options: Options) -> Iterator[Part]:
    """What the tool or document at `at` holds."""
    items = options[name]
    item = items[at] if isinstance(items, list) else None
    if not isinstance(items, list) or not isinstance(item, dict):
        return

    def part(path: str, changed: JsonValue, *, needed: bool) -> Part:
        return Part(
            f"{name}[{at}]{path}", f"`{name}[]{path}`", needed, messages, {**options, name: _with(items, at, changed)}
        )

    if name == "tools":
        for path, needed, changed in _parts_of_function(item, ("name", "description", "parameters")):
            yield part(f".{path}", changed, needed=needed)
        return
    if (other := other_object(item)) != item:
        yield part("", other, needed=True)
    for key, value in item.items():
        if (other := other_value(value)) != value:
            yield part(f".{key}", {**item, key: other}, needed=False)


def _with(items: Sequence[JsonValue], at: int, item: JsonValue) -> list[JsonValue]:
    return [*items[:at], item, *items[at + 1 :]]
