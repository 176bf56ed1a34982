"""The common shapes of rows, each with the mapping that reads it: recognized where `data.format` makes no prompt."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.data.row_format.template_filters import TemplateValueError, from_json

Columns = Mapping[str, JsonValue]
Mapped = Mapping[str, JsonValue]
INPUT = "{{ [instruction, input | default('')] | select | join('\n\n') }}"
"""An input behind a blank line, where there is one."""
SYSTEM = "{{ system | default('') }}"


@dataclass(frozen=True, slots=True)
class Shape:
    """One way in which rows are commonly laid out."""

    name: str
    """What it is called in messages."""
    fits: Callable[[Columns], bool]
    """Whether a row is laid out so."""
    mapping: Callable[[Sequence[Columns]], Mapped]
    """What is made of rows that are, looked at together."""


def shapes_of(rows: Sequence[Columns]) -> Iterator[tuple[str, Mapped]]:
    """Name and mapping of each shape that at least half of the rows have; the others are wrong one by one."""
    for shape in SHAPES:
        fitting = [row for row in rows if shape.fits(row)]
        if fitting and 2 * len(fitting) >= len(rows):
            yield shape.name, shape.mapping(fitting)


def _messages(rows: Sequence[Columns]) -> Mapped:
    """Rows of `messages` as they are; if all end with the answer, without it."""
    chats = [row["messages"] for row in rows]
    return {"messages": f"{{{{ {_read('messages', chats)} }}}}"}


def _conversations(rows: Sequence[Columns]) -> Mapped:
    chats = [row["conversations"] for row in rows]
    return {"messages": f"{{{{ {_read('conversations', chats)} }}}}", **_system(rows)}


def _read(column: str, chats: Sequence[JsonValue]) -> str:
    """An expression for a column of chats: lists or JSON text, of ShareGPT's turns or messages, answered or not."""
    as_text = all(isinstance(chat, str) for chat in chats)
    turns = [_parsed(chat) for chat in chats] if as_text else chats
    sharegpt = any(_key_of_first(chat, "from") and _key_of_first(chat, "value") for chat in turns)
    answered = sharegpt or all(_ends_with_answer(chat) for chat in turns)
    if not answered:  # JSON text is a chat as it stands
        return column
    return f"{column}{' | from_json' if as_text else ''}{' | from_sharegpt' if sharegpt else ''} | without_answer"


def _parsed(text: JsonValue) -> JsonValue:
    try:
        return from_json(text)  # type: ignore[no-any-return]
    except TemplateValueError:  # which is said of each row where it is made
        return None


def _key_of_first(chat: JsonValue, key: str) -> bool:
    return isinstance(chat, list) and bool(chat) and isinstance(chat[0], dict) and key in chat[0]


def _ends_with_answer(chat: JsonValue) -> bool:
    last = chat[-1] if isinstance(chat, list) and chat else None
    return isinstance(last, dict) and (last.get("role") == "assistant" or last.get("from") == "gpt")


def _prompt(rows: Sequence[Columns]) -> Mapped:
    return {"prompt": "{{ prompt }}", **_system(rows)}


def _question(rows: Sequence[Columns]) -> Mapped:
    answered = any("expected_answer" in row for row in rows)
    return {"prompt": "{{ question }}", **({} if answered else {"expected_answer": "{{ answer }}"}), **_system(rows)}


def _instruction(rows: Sequence[Columns]) -> Mapped:
    has_input = any("input" in row for row in rows)
    return {"prompt": INPUT if has_input else "{{ instruction }}", **_system(rows)}


def _system(rows: Sequence[Columns]) -> Mapped:
    return {"system": SYSTEM} if any("system" in row for row in rows) else {}


def _is_text(row: Columns, name: str) -> bool:
    return isinstance(row.get(name), str)


SHAPES: Sequence[Shape] = (
    Shape("messages", lambda row: "messages" in row, _messages),
    Shape("prompt", lambda row: isinstance(row.get("prompt"), str | list), _prompt),
    Shape(
        "question/answer",
        lambda row: _is_text(row, "question") and isinstance(row.get("answer"), str | int | float),
        _question,
    ),
    Shape("conversations", lambda row: isinstance(row.get("conversations"), list | str), _conversations),
    Shape(
        "instruction/input/output",
        lambda row: _is_text(row, "instruction") and _is_text(row, "output"),
        _instruction,
    ),
)
"""In the order in which they are named."""
