"""What `data.format` makes of a row's columns: the fields that routers, prompt builders and evaluators read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import JsonValue

from distillkit.data.row_format.chat_templates import OF_STUDENTS, OF_TEACHERS, StudentMessages, TeacherMessages
from distillkit.data.row_format.made_of import AS_THEY_ARE, MadeOf
from distillkit.data.row_format.row_template import RowTemplate, compile_template
from distillkit.data.tool_calls import is_given
from distillkit.types import Teacher

Mapped = Mapping[str, JsonValue]
"""A mapping as a config has it: what to make, and the template of it."""
ROUTE, OTHERS = "teacher", "fields"
"""The keys of what names a row's teacher, and of fields by any name."""


@dataclass(frozen=True, slots=True)
class RowFormat:
    """A mapping, compiled once."""

    fields: Mapping[str, RowTemplate]
    """What it makes besides messages, by the field that it is put into."""
    student: StudentMessages | None
    teacher: TeacherMessages | None
    mapped: frozenset[str]
    """The columns whose use the mapping decides."""

    @classmethod
    def of(cls, mapping: Mapped, teachers: Sequence[Teacher] = (), route_field: str | None = None) -> Self:
        """Compile a mapping for these teachers, whom rows name in `route_field`; None: in no field.

        Raises ValueError for what is no template; those of a config were checked before.
        """
        fields = {
            route_field if name == ROUTE and route_field else name: compile_template(value, key)
            for name, key, value in _simple(mapping)
        }
        student = StudentMessages.of(mapping) if mapping.keys() & OF_STUDENTS else None
        teacher = TeacherMessages.of(mapping, teachers, route_field) if mapping.keys() & OF_TEACHERS else None
        reads = {name for template in fields.values() for name in template.reads}
        reads |= student.reads if student else set()
        reads |= teacher.reads if teacher else set()
        return cls(fields, student, teacher, frozenset(reads | ({"system"} & mapping.keys())))

    @property
    def made_of(self) -> MadeOf:
        """What makes the student's messages."""
        return AS_THEY_ARE["messages"] if self.student is None else self.student.made_of

    def apply(self, columns: Mapped) -> Mapped:
        """The columns, and what is made of them laid over. Raises RowError with the key of a template that fails."""
        made = dict(columns)
        for name, template in self.fields.items():
            value = template.of(columns)
            made[name] = value if is_given(value) else None
        if self.student is not None:
            made["messages"] = self.student.messages_of(columns)
        if self.teacher is not None:
            made |= self.teacher.fields_of(columns, made)
        return made


def _simple(mapping: Mapped) -> Iterator[tuple[str, str, JsonValue]]:
    """Field, config key and template of what becomes a field as it is."""
    for name, value in mapping.items():
        if name == OTHERS and isinstance(value, dict):
            yield from ((field, f"data.format.{OTHERS}.{field}", template) for field, template in value.items())
        elif name not in OF_STUDENTS | OF_TEACHERS:
            yield name, f"data.format.{name}", value
