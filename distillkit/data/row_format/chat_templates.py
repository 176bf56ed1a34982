"""The messages that `data.format` makes: what the student reads, and what its teachers read instead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import JsonValue

from distillkit.data.row_format.row_template import RowTemplate, compile_template
from distillkit.data.tool_calls import from_json_text, is_given
from distillkit.errors import RowError
from distillkit.files.strict_json import json_type
from distillkit.types import Teacher

OF_STUDENTS = frozenset({"prompt", "messages", "system"})
OF_TEACHERS = frozenset({"teacher_prompt", "teacher_messages", "teacher_system"})
Columns = Mapping[str, JsonValue]
Turns = list[JsonValue]


@dataclass(frozen=True, slots=True)
class StudentMessages:
    """`messages` of a row, made by `prompt` or `messages` (else the row's own), behind a `system` message."""

    prompt: RowTemplate | None
    messages: RowTemplate | None
    system: RowTemplate | None

    @classmethod
    def of(cls, mapping: Mapping[str, JsonValue]) -> Self:
        """Compile. Raises ValueError."""
        return cls(*(_template(mapping, name) for name in ("prompt", "messages", "system")))

    @property
    def reads(self) -> set[str]:
        """The columns that it reads."""
        return _reads(self.prompt, self.messages, self.system)

    def messages_of(self, columns: Columns) -> JsonValue:
        """The messages. Raises RowError."""
        turns = self._turns(columns)
        text = None if self.system is None else _text(self.system, columns)
        if self.system is None or text is None or not isinstance(turns, list):
            return turns
        if _begins_with_system(turns):
            raise RowError(self.system.key, "makes a system message, and the prompt begins with one already")
        return [_message("system", text), *turns]

    def _turns(self, columns: Columns) -> JsonValue:
        made = self.prompt or self.messages
        if made is None:
            return columns.get("messages")
        turns = _chat(made, columns) if self.prompt is None else _prompt(made, columns)
        if turns is None:
            raise RowError(made.key, "makes no prompt of this row: what it reads is null or empty")
        return turns


@dataclass(frozen=True, slots=True)
class ByRoute:
    """A template, or one for each route that has one."""

    everywhere: RowTemplate | None
    routes: Mapping[str, RowTemplate]

    @classmethod
    def of(cls, mapping: Mapping[str, JsonValue], name: str) -> Self:
        """Compile. Raises ValueError."""
        value = mapping.get(name)
        if isinstance(value, dict):
            return cls(None, {route: compile_template(text, _key(name, route)) for route, text in value.items()})
        return cls(_template(mapping, name), {})

    def at(self, route: JsonValue) -> RowTemplate | None:
        """The template of a row's route."""
        return self.routes.get(route) if self.everywhere is None and isinstance(route, str) else self.everywhere

    @property
    def reads(self) -> set[str]:
        """The columns that it reads."""
        return _reads(self.everywhere, *self.routes.values())


@dataclass(frozen=True, slots=True)
class TeacherMessages:
    """What teachers read, under the field of each: whole `teacher_messages`, or made of what the student reads."""

    prompt: ByRoute
    messages: ByRoute
    system: ByRoute
    keys: Mapping[str, str]
    """Route to the field that its teacher reads."""
    route_field: str | None

    @classmethod
    def of(cls, mapping: Mapping[str, JsonValue], teachers: Sequence[Teacher], route_field: str | None) -> Self:
        """Compile. Raises ValueError."""
        return cls(
            prompt=ByRoute.of(mapping, "teacher_prompt"),
            messages=ByRoute.of(mapping, "teacher_messages"),
            system=ByRoute.of(mapping, "teacher_system"),
            keys={teacher.name: teacher.messages_key for teacher in teachers},
            route_field=route_field,
        )

    @property
    def reads(self) -> set[str]:
        """The columns that it reads."""
        return self.prompt.reads | self.messages.reads | self.system.reads

    def fields_of(self, columns: Columns, made: Columns) -> Mapping[str, JsonValue]:
        """The fields of the row's teacher, or of all where no field says which; none of a route without a template.

        Raises RowError.
        """
        route = None if self.route_field is None else made.get(self.route_field)
        if not any(by_route.at(route) for by_route in (self.prompt, self.messages, self.system)):
            return {}
        keys = {self.keys[route]} if isinstance(route, str) and route in self.keys else set(self.keys.values())
        return dict.fromkeys(keys, self._read_by(route, columns, made.get("messages")))

    def _read_by(self, route: JsonValue, columns: Columns, student: JsonValue) -> JsonValue:
        """What the teacher of a route reads; None: what the student does."""
        whole = self.messages.at(route)
        if whole is not None:
            return _chat(whole, columns)
        prompt, system = self.prompt.at(route), self.system.at(route)
        turns = None if prompt is None else _prompt(prompt, columns)
        text = None if system is None else _text(system, columns)
        if not isinstance(student, list) or (turns is None and text is None):
            return None
        turns = student if turns is None else turns
        if text is not None:
            return [_message("system", text), *(turns[1:] if _begins_with_system(turns) else turns)]
        return turns if _begins_with_system(turns) or not _begins_with_system(student) else [student[0], *turns]


def _prompt(template: RowTemplate, columns: Columns) -> Turns | None:
    """A text as a user's message; a list as it is; None for null and an empty text."""
    value = template.of(columns)
    if isinstance(value, str):
        return [_message("user", value)] if value else None
    if not isinstance(value, list | None):
        raise RowError(template.key, f"makes a JSON {json_type(value)}, not a text or a list of messages")
    return value


def _chat(template: RowTemplate, columns: Columns) -> Turns | None:
    """A list, or the JSON text of one; None for null and an empty text."""
    value = template.of(columns)
    if not is_given(value):
        return None
    if isinstance(value, str) and value.lstrip().startswith("["):  # as rows without a mapping may have it
        value = from_json_text(value, template.key)
    if not isinstance(value, list):
        raise RowError(template.key, f"makes a JSON {json_type(value)}, not a list of messages")
    return value


def _text(template: RowTemplate, columns: Columns) -> str | None:
    """None for null and an empty text."""
    value = template.of(columns)
    if not isinstance(value, str | None):
        raise RowError(template.key, f"makes a JSON {json_type(value)}, not a text")
    return value or None


def _begins_with_system(turns: Sequence[JsonValue]) -> bool:
    first = turns[0] if turns else None
    return isinstance(first, dict) and first.get("role") in ("system", "developer")


def _message(role: str, content: str) -> dict[str, JsonValue]:
    return {"role": role, "content": content}


def _reads(*templates: RowTemplate | None) -> set[str]:
    return {name for template in templates if template is not None for name in template.reads}


def _template(mapping: Mapping[str, JsonValue], name: str) -> RowTemplate | None:
    return None if mapping.get(name) is None else compile_template(mapping[name], _key(name))


def _key(name: str, route: str = "") -> str:
    return f"data.format.{name}{f'.{route}' if route else ''}"
