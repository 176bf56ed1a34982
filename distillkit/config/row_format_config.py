"""The keys of section `data` that say what is made of a row's columns: `format`, `filter`, `sort`."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, ValidationInfo, field_validator, model_validator

from distillkit.config.sections import Section
from distillkit.data.row_format.chat_templates import OF_TEACHERS
from distillkit.data.row_format.expressions import RowFilter, SortKey
from distillkit.data.row_format.row_template import compile_template
from distillkit.errors import suggest
from distillkit.files.strict_json import shortened
from distillkit.roles.router import Router


def _require_filter(value: str) -> str:
    RowFilter(value)
    return value


def _require_sort(value: str) -> str:
    SortKey(value)
    return value


FilterExpression = Annotated[str, AfterValidator(_require_filter)]


class SortConfig(Section):
    """In which order the rows of each epoch are trained."""

    by: Annotated[str, AfterValidator(_require_sort)] = Field(
        description="An expression over a row's columns that gives a number or a text (`level`, `question | length`); "
        "rows that are alike in it are shuffled, or in the order of the source where `shuffle` is false."
    )
    descending: bool = Field(False, description="The largest first.")


def _sort_shorthand(value: object) -> object:
    return {"by": value} if isinstance(value, str) else value


Sort = Annotated[SortConfig, BeforeValidator(_sort_shorthand)]


class FormatConfig(Section):
    """What is made of a row's columns, each by a Jinja template over them.

    A template that is one `{{ expression }}` gives its value, any other a text; a list or an object may hold templates.
    """

    prompt: JsonValue = Field(None, description="What the student reads: a text, or a list of messages.")
    system: JsonValue = Field(None, description="A system message before it.")
    messages: JsonValue = Field(None, description="In the place of `prompt`: a list of messages.")
    teacher_prompt: JsonValue = Field(
        None,
        description="What teachers read in the place of the prompt, behind the same system message; or a mapping of "
        "route value to template, where they differ.",
    )
    teacher_system: JsonValue = Field(
        None, description="The system message of teachers, or a mapping by route value; the prompt stays the student's."
    )
    teacher_messages: JsonValue = Field(
        None, description="In the place of these two: all messages that teachers read, or a mapping by route value."
    )
    expected_answer: JsonValue = Field(None, description="For the evaluator `exact_match`.")
    tools: JsonValue = Field(None, description="The row's tools, for chat templates.")
    documents: JsonValue = Field(None, description="The row's documents, for chat templates.")
    chat_template_kwargs: JsonValue = Field(None, description="The row's other options for chat templates.")
    teacher: JsonValue = Field(None, description="The route value of the row's teacher; put into `router.route_key`.")
    fields: dict[str, JsonValue] = Field(
        default_factory=dict, description="Any other fields, for routers, prompt builders and evaluators of your own."
    )

    @field_validator("*")
    @classmethod
    def _compiles(cls, value: JsonValue, info: ValidationInfo) -> JsonValue:
        compile_template(value, f"data.format.{info.field_name}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for one, others in (("messages", ("prompt",)), ("teacher_messages", ("teacher_prompt", "teacher_system"))):
            for other in others:
                if getattr(self, one) is not None and getattr(self, other) is not None:
                    raise ValueError(f"has `{one}` and `{other}`, which make the same messages; take one out")
        known = type(self).model_fields.keys() - {"teacher", "fields"}
        for name in self.fields:
            if name in known:
                raise ValueError(f"fields: {name!r} is a key of data.format itself; write data.format.{name}")
        return self

    @property
    def given(self) -> dict[str, JsonValue]:
        """The keys that are given, with their templates."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in named.items() if value is not None and value != {}}


def require_routes(mapping: FormatConfig, teachers: Sequence[str], router: Router) -> None:
    """Raise ValueError for what a mapping makes for a route that rows cannot have."""
    given, field = mapping.given, router.route_field()
    by_route = {name: value for name, value in given.items() if name in OF_TEACHERS and isinstance(value, dict)}
    for key in ("teacher", *by_route):
        if key in given and field is None:
            raise ValueError(
                f"data.format.{key}: router {router.name!r} takes a row's teacher from no field; take it out, or "
                "choose `router: field`"
            )
    if "teacher" in given and field in mapping.fields:
        raise ValueError(f"data.format: `teacher` and `fields.{field}` make the same field; take one out")
    for key, routes in by_route.items():
        for route in routes:
            if route not in teachers:
                shown = shortened(repr(route), 60)
                raise ValueError(
                    f"data.format.{key}: no teacher has the route value {shown}; {suggest(route, teachers)}"
                )
