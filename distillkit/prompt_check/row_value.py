"""A row's messages and template options as one value that can be changed, and changed back into what is rendered."""

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from distillkit.types import Message, Messages

Options = Mapping[str, JsonValue]
Path = tuple[str | int, ...]
"""`("messages", 1, "content")`, `("tools", 0, "function", "name")`."""


def as_row(messages: Messages, options: Options) -> dict[str, JsonValue]:
    """Messages and options as one value, in plain dicts and lists."""
    of_messages: list[JsonValue] = [thawed(message.as_dict()) for message in messages]
    return {**{name: thawed(value) for name, value in options.items()}, "messages": of_messages}


def from_row(row: Mapping[str, Any]) -> tuple[Messages, Options]:
    """The messages and options of what `as_row` gave."""
    options = {name: value for name, value in row.items() if name != "messages"}
    return tuple([_message(**message) for message in row["messages"]]), options


def _message(role: str, content: str, **extra: JsonValue) -> Message:
    return Message(role, content, extra)


def thawed(value: JsonValue) -> JsonValue:
    """A copy in plain dicts and lists."""
    if isinstance(value, dict):
        return {key: thawed(item) for key, item in value.items()}
    return [thawed(item) for item in value] if isinstance(value, list) else value


def get(row: Any, path: Path) -> JsonValue:  # noqa: ANN401 - what is at a path has any type
    """What stands at a path."""
    for key in path:
        row = row[key]
    return row  # type: ignore[no-any-return]


def put(row: Any, path: Path, value: JsonValue) -> None:  # noqa: ANN401
    """Put `value` there."""
    *way, last = path
    for key in way:
        row = row[key]
    row[last] = value
