"""Prompt builders: what student and teacher each read."""

from collections.abc import Sequence
from typing import ClassVar

from distillkit import ChatPrompts, Messages, PromptBuilder, Route, Row, RowError, Teacher, parse_messages


class MessagesPrompts(PromptBuilder):
    """The student reads the row's `messages`, each teacher the field named by its `teacher_messages_key`."""

    name: ClassVar[str] = "messages"

    def build(self, row: Row, route: Route, teachers: Sequence[Teacher]) -> ChatPrompts:
        """Raises RowError where a teacher's messages are malformed, or missing and required."""
        own = {teacher.name: self._privileged(row, teacher) for teacher in teachers if teacher.name in route.weights}
        return ChatPrompts(
            student=row.messages,
            teachers={name: messages or row.messages for name, messages in own.items()},
            fallbacks=frozenset(name for name, messages in own.items() if messages is None),
        )

    def _privileged(self, row: Row, teacher: Teacher) -> Messages | None:
        """The teacher's own messages; None where absent, null or empty, and the teacher allows that."""
        key = teacher.messages_key
        value = row.fields.get(key)
        if value is not None and value != []:
            return parse_messages(value, key)
        if teacher.missing_messages == "error":
            raise RowError(
                key,
                f"is missing, and teacher {teacher.name!r} needs it; add it, or set missing_teacher_messages: student "
                "to score such rows under `messages`",
            )
        return None
