"""What of a row decides which of its parts a template prints: rows that are alike in it need to be looked at once."""

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence

from pydantic import JsonValue

from distillkit.data.tool_calls import function_of
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
    inner = tuple((key, bool(value)) for key, value in function.items()) if isinstance(function, dict) else None
    return inner, tuple(item) if "function" in item else None


def options_shape(options: Mapping[str, JsonValue]) -> Hashable:
    """Which options a row has, and the values of those that are switches."""
    return tuple((name, value if isinstance(value, bool) else _shape(value)) for name, value in options.items())


def message_contexts(kinds: Sequence[Kind], options: Hashable) -> Iterator[Hashable]:
    """For each message what decides whether its parts are printed: its place, its neighbours, roles, options."""
    count = len(kinds)
    roles = frozenset(kind[0] for kind in kinds)
    last_user = next((i for i in reversed(range(count)) if kinds[i][0] == "user"), -1)
    for at, kind in enumerate(kinds):
        before, behind = kinds[at - 1] if at else None, kinds[at + 1] if at + 1 < count else None
        yield at, count, before, kind, behind, at > last_user, roles, options
