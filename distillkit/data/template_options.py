"""What a row gives its chat template besides messages: `tools`, `documents`, `chat_template_kwargs`."""

from collections.abc import Callable, Iterator, Mapping

from pydantic import JsonValue

from distillkit.data.tool_calls import from_json_text, function_of, is_given, without_nulls
from distillkit.errors import RowError
from distillkit.files.strict_json import json_type, shortened, walk
from distillkit.frozen import FrozenDict

OPTIONS = "chat_template_kwargs"
A_TOOL = '{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}'
OTHERWISE = "; a field of this name is for the chat template, so rename what is not"
NO_OPTIONS: Mapping[str, JsonValue] = FrozenDict()


def parse_template_options(fields: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """The template options of a row: its `chat_template_kwargs`, and its `tools` and `documents` under those names.

    Each may be JSON text. What is null, an empty text or not there is not given, so that what the config has stands; an
    empty list is given, and means none for this row: it is None in what is returned, as templates expect it. Raises
    RowError.
    """
    if fields.keys().isdisjoint(NAMES):
        return NO_OPTIONS
    options: dict[str, JsonValue] = {}
    if is_given(fields.get(OPTIONS)):
        options = _parse_kwargs(fields[OPTIONS])
    for name in PARSERS:
        if is_given(fields.get(name)):
            options[name] = PARSERS[name](fields[name], name)
    return options or NO_OPTIONS


def _parse_kwargs(value: JsonValue) -> dict[str, JsonValue]:
    options = from_json_text(value, OPTIONS)
    if not isinstance(options, dict):
        raise RowError(OPTIONS, f"is a JSON {json_type(options)}, not an object")
    for name in PARSERS:
        if name in options:
            raise RowError(OPTIONS, f"holds {name!r}; write it as the row's own field `{name}`")
    return without_nulls(options)


def parse_tools(value: JsonValue, name: str) -> JsonValue:
    """A list of OpenAI's tool schemas; None for an empty one. Raises RowError."""
    tools = _parse_objects(value, name, A_TOOL)
    return [_parse_tool(tool, f"{name}[{i}]") for i, tool in enumerate(tools)] or None


def _parse_tool(tool: Mapping[str, JsonValue], name: str) -> dict[str, JsonValue]:
    """A tool, with or without the wrapping `function`: it is printed as it stands, and looked for in the prompt."""
    function, where = function_of(tool), f"{name}.function" if "function" in tool else name
    if not isinstance(function, dict):
        raise RowError(where, f"is a JSON {json_type(function)}; a tool is {A_TOOL}")
    if not (isinstance(function.get("name"), str) and function["name"]):
        shown = shortened(repr(function.get("name")), 60)
        raise RowError(f"{where}.name", f"is {shown}; a tool is {A_TOOL}")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise RowError(f"{where}.parameters", f"is a JSON {json_type(parameters)}, not a JSON schema")
    for key in _null_properties(parameters):
        raise RowError(
            f"{where}.parameters",
            f"has the property {shortened(repr(key), 60)} with null for a schema, as a table fills in what another "
            f"row's tools have; keep `{name.partition('[')[0]}` as JSON text (json.dumps) where the row is made",
        )
    function = without_nulls(function)
    return {**without_nulls(tool), "function": function} if "function" in tool else function


def _null_properties(schema: JsonValue) -> Iterator[str]:
    for _, value in walk(schema):
        properties = value.get("properties") if isinstance(value, dict) else None
        if isinstance(properties, dict):
            yield from (key for key, item in properties.items() if item is None)


def parse_documents(value: JsonValue, name: str) -> JsonValue:
    """A list of objects, such as `{"title": ..., "text": ...}`; None for an empty one. Raises RowError."""
    return [*_parse_objects(value, name, '{"title": ..., "text": ...}')] or None


def _parse_objects(value: JsonValue, name: str, form: str) -> list[dict[str, JsonValue]]:
    values = from_json_text(value, name)
    if not isinstance(values, list):
        raise RowError(name, f"is a JSON {json_type(values)}, not a list of {form}{OTHERWISE}")
    objects = [item for item in values if isinstance(item, dict)]
    for i, item in enumerate(values):
        if not isinstance(item, dict):
            raise RowError(f"{name}[{i}]", f"is a JSON {json_type(item)}, not {form}{OTHERWISE}")
    return objects


PARSERS: Mapping[str, Callable[[JsonValue, str], JsonValue]] = {"tools": parse_tools, "documents": parse_documents}
"""The fields of a row that are options of its template by themselves."""
NAMES = frozenset((OPTIONS, *PARSERS))
"""All the fields of a row that are for its template."""
