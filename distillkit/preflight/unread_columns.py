"""Columns that look like a teacher's privileged prompt, and of which no prompt holds anything."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from pydantic import JsonValue

from distillkit.data.counted import counted
from distillkit.files.strict_json import parse_json
from distillkit.types import RoutedRow, Teacher

NAMES = frozenset({"teacher_messages", "teacher_prompt", "privileged_messages", "privileged_prompt"})
"""What such columns are called, besides `*_messages` and each teacher's `teacher_messages_key`."""


class UnreadColumns:
    """Looks in prompts for the texts of such columns, until one is found: a column is for some routes, perhaps."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        """No rows so far."""
        self._keys = NAMES | {teacher.messages_key for teacher in teachers}
        self._teachers = teachers
        self._read: set[str] = set()
        self._rows: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def add(self, routed_row: RoutedRow) -> None:
        """Look at one more row."""
        for name, value in routed_row.row.fields.items():
            if name in self._read or not (name in self._keys or name.endswith("_messages")):
                continue
            if name in routed_row.row.mapped:  # a template may have made anything of it
                continue
            text = _longest_text(value)
            if not text:
                continue
            if any(text in content for content in _contents(routed_row)):
                self._read.add(name)
            else:
                self._rows[name] += 1
                self._first.setdefault(name, routed_row.row.place)

    def notes(self) -> list[str]:
        """A note for each column that was in no prompt of any row."""
        keys = ", ".join(f"{teacher.name} {teacher.messages_key!r}" for teacher in self._teachers)
        return [
            f"{counted(count, 'row')} {'has' if count == 1 else 'have'} `{name}` (first: {self._first[name]}), whose "
            "text is in no prompt of student or teacher: if a teacher is to read it, name it by "
            f"teachers[].teacher_messages_key (now: {keys}), or mend the prompt builder"
            for name, count in sorted(self._rows.items())
            if name not in self._read
        ]


def _longest_text(value: JsonValue) -> str:
    """The text that a column holds, or the longest content of its messages; empty where it holds neither."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # messages as CSV has them
        with suppress(ValueError):
            value = parse_json(value)
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, list):
        return ""
    contents = (message.get("content") for message in value if isinstance(message, Mapping))
    return max((content.strip() for content in contents if isinstance(content, str)), key=len, default="")


def _contents(routed_row: RoutedRow) -> Iterator[str]:
    """What student and teachers read, message by message."""
    chat = routed_row.chat
    for messages in (chat.student, *chat.teachers.values()):
        for message in messages:
            yield message.content
