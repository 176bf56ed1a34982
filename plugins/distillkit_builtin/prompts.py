"""Prompt builders: what student and teacher each read."""

from collections.abc import Sequence
from typing import ClassVar

from distillkit import (
    ChatPrompts,
    Messages,
    PromptBuilder,
    Route,
    Row,
    RowError,
    Teacher,
    parse_messages,
    parse_template_options,
)

ONLY_TEXT = "only text can be distilled; take it out, and whatever needs it"
INSTEAD = {
    "system": "write `data.format: {system: '{{ system }}'}`, or `{system: ''}` to leave it out",
    "functions": 'write `tools`, a list of {"type": "function", "function": {...}}',
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), ONLY_TEXT),
}
"""Fields that belong to a prompt and are in none, and what to do: without them it is surely another prompt."""
ELSEWHERE = ("prompt", "completion", "chosen", "rejected", "conversations", "reasoning_effort", "tool_choice")
"""Fields that other tools make prompts of, or send with them; of no meaning beside `messages`."""
LOOKED_FOR = frozenset((*INSTEAD, *ELSEWHERE))


class MessagesPrompts(PromptBuilder):
    """The student reads the row's `messages`, each teacher the field named by its `teacher_messages_key`.

    The row's `tools`, `documents` and `chat_template_kwargs` are for the chat templates of all of them.
    """

    name: ClassVar[str] = "messages"

    def build(self, row: Row, route: Route, teachers: Sequence[Teacher]) -> ChatPrompts:
        """Raises RowError where a teacher's messages are malformed, or missing and required."""
        read: dict[str, Messages] = {}
        fallbacks: list[str] = []
        for teacher in teachers:
            if teacher.name in route.weights:
                own = self._privileged(row, teacher)
                read[teacher.name] = own or row.messages
                fallbacks += [teacher.name] if own is None else []
        return ChatPrompts(
            student=row.messages,
            teachers=read,
            fallbacks=frozenset(fallbacks),
            template_options=parse_template_options(row.fields),
            unused=_unused(row, teachers),
        )

    def _privileged(self, row: Row, teacher: Teacher) -> Messages | None:
        """The teacher's own messages; None where absent, null or empty, and the teacher allows that."""
        key = teacher.messages_key
        value = row.fields.get(key)
        if value is not None and value not in ([], ""):  # an empty cell of CSV is as null elsewhere
            return parse_messages(value, key)
        if teacher.missing_messages == "error":
            raise RowError(
                key,
                f"is missing, and teacher {teacher.name!r} needs it; add it, or set missing_teacher_messages: student "
                "to score such rows under `messages`",
                _other_column(row, key),
            )
        return None


def _other_column(row: Row, key: str) -> str:
    """How a column is chosen that may hold a teacher's messages, if there is one."""
    found = next((name for name in row.fields if name.endswith("_messages") and name != key), None)
    return "" if found is None else f"teacher_messages_key: {found}, if that column is meant for this teacher"


def _unused(row: Row, teachers: Sequence[Teacher]) -> frozenset[str]:
    """Fields that are made prompts of elsewhere. Raises RowError for one without which the prompt is another."""
    if row.fields.keys().isdisjoint(LOOKED_FOR):
        return frozenset()
    own = {teacher.messages_key for teacher in teachers}
    found = {
        name for name in LOOKED_FOR & row.fields.keys() - own - row.mapped if row.fields[name] not in (None, "", [], {})
    }
    for name in INSTEAD:
        if name in found and not (name == "system" and any(message.role == "system" for message in row.messages)):
            raise RowError(name, f"is not in the prompt, which is made of `messages`; {INSTEAD[name]}")
    return frozenset(found)
