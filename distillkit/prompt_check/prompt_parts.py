"""The parts of a row's prompt: where each stands, and what can be put there to see whether a template prints it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.data.tool_calls import function_of
from distillkit.prompt_check.changed_value import marked_texts, other_end, other_object, other_text, other_value
from distillkit.prompt_check.row_value import Options, Path
from distillkit.types import Message, Messages

SAME_ROLES = ({"system", "developer"}, {"assistant"}, {"tool"}, {"system"}, {"developer"})
"""Roles that are two names of one thing, and each with itself."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a row holds."""

    path: Path
    """Where in what `as_row` gives."""
    kind: str
    """What a note calls all parts of its kind."""
    needed: bool
    """Whether the prompt is another one without it; else it is what templates may well leave out."""
    other: JsonValue
    """Something else of the same type and length."""
    mark: Callable[[JsonValue, str], JsonValue] | None = None
    """Puts a word into it, to be looked for in the prompt; None: a part inside it has one, or there can be none."""

    @property
    def is_id(self) -> bool:
        """Whether it is the id of a call, or that of the call that a tool answers."""
        return self.path[-1] in ("id", "tool_call_id")

    def marked(self, value: JsonValue, word: str) -> JsonValue:
        """What stands in its place, with `word` in it."""
        return value if self.mark is None else self.mark(value, word)

    @property
    def place(self) -> str:
        """Behind the field of the messages, or from the field of an option: `[1].content`, `tools[0].function.name`."""
        shown = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.path)
        return shown.removeprefix(".messages").removeprefix(".")


def parts_of(messages: Messages, options: Options) -> Iterator[Part]:
    """Every part of a row, but options that are switches."""
    roles = {message.role for message in messages}
    for at, message in enumerate(messages):
        yield from _parts_of_message(("messages", at), message, roles)
    for name in ("tools", "documents"):
        items = options.get(name)
        for at, item in enumerate(items) if isinstance(items, list) else ():
            if isinstance(item, dict):
                yield from _parts_of_tool((name, at), item) if name == "tools" else _parts_of_document((name, at), item)


def _parts_of_message(path: Path, message: Message, roles: set[str]) -> Iterator[Part]:
    content, of = message.content, f"content of a message of role {message.role!r}"
    if content.strip():
        here, calls = (*path, "content"), "tool_calls" in message.extra
        # Beside a call, some templates know of nothing else, and so does the model that was trained on them.
        yield Part(here, f"the {of}{' with tool calls' if calls else ''}", not calls, other_text(content))
        yield Part(
            here, f"the beginning of the {of}", False, other_end(content, 0), lambda text, word: f"{word} {text}"
        )
        yield Part(here, f"the end of the {of}", False, other_end(content, -1), lambda text, word: f"{text} {word}")
    if message.role != "user" and "tool_calls" not in message.extra:  # which tell an assistant from all others
        for role in sorted(roles):
            if {role, message.role} not in SAME_ROLES:
                yield Part((*path, "role"), f"whether a message is of role {message.role!r} or {role!r}", False, role)
    for key, value in message.extra.items():
        if key == "tool_calls" and isinstance(value, list):
            for at, call in enumerate(value):
                if isinstance(call, dict):
                    yield from _parts_of_function((*path, key, at), call, "tool_calls[]", ("name", "arguments"))
        else:
            yield from _part_of_value((*path, key), value, f"`{key}` of a message of role {message.role!r}")


def _part_of_value(path: Path, value: JsonValue, kind: str, *, needed: bool = False) -> Iterator[Part]:
    """A value as a whole, if it holds anything."""
    other = other_object(value) if needed else other_value(value)
    if other != value:
        yield Part(path, kind, needed, other, marked_texts)


def _parts_of_function(path: Path, value: Options, kind: str, needed: Sequence[str]) -> Iterator[Part]:
    """Of a call or a tool: what its function holds, and what stands beside that."""
    function = function_of(value)
    wrapped = "function" in value
    inner, of = ((*path, "function"), f"{kind}.function") if wrapped else (path, kind)
    for key, item in function.items() if isinstance(function, dict) else ():
        if names_no_parameter(key, item):
            yield from _part_of_value((*inner, key), item, f"`{of}.{key}` without properties")
        elif key != "type":
            yield from _part_of_value((*inner, key), item, f"`{of}.{key}`", needed=key in needed)
    for key, item in value.items() if wrapped else ():
        if key not in ("type", "function"):
            yield from _part_of_value((*path, key), item, f"`{kind}.{key}`")


def names_no_parameter(key: str, value: JsonValue) -> bool:
    """Whether this is the schema of a function like `get_time()`, for which a signature has no place."""
    return key == "parameters" and isinstance(value, dict) and not value.get("properties")


def _parts_of_tool(path: Path, tool: Options) -> Iterator[Part]:
    yield from _parts_of_function(path, tool, "tools[]", ("name", "description", "parameters"))


def _parts_of_document(path: Path, document: Options) -> Iterator[Part]:
    other = other_object(dict(document))
    if other != document:
        yield Part(path, "`documents[]`", True, other)
    for key, value in document.items():
        yield from _part_of_value((*path, key), value, f"`documents[].{key}`")
