"""What rows give their chat template: tools, documents and options, and how they lie over those of the config."""

import json
from typing import Any

import pytest

from distillkit.data.template_options import parse_template_options
from distillkit.errors import RowError

TOOL = {"type": "function", "function": {"name": "w", "description": "d", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {}),
        ({"tools": None, "documents": None, "chat_template_kwargs": None, "expected_answer": "x"}, {}),
        ({"tools": "", "documents": "", "chat_template_kwargs": ""}, {}),
        ({"tools": [TOOL]}, {"tools": [TOOL]}),
        ({"tools": json.dumps([TOOL])}, {"tools": [TOOL]}),
        ({"tools": [TOOL["function"]]}, {"tools": [TOOL["function"]]}),
        ({"tools": [{**TOOL, "strict": None}]}, {"tools": [TOOL]}),
        ({"tools": []}, {"tools": None}),
        ({"tools": "[]", "documents": []}, {"tools": None, "documents": None}),
        ({"documents": [{"text": "t"}]}, {"documents": [{"text": "t"}]}),
        ({"chat_template_kwargs": {"a": False, "b": None}}, {"a": False}),
        ({"chat_template_kwargs": '{"a": 1}', "tools": [TOOL]}, {"a": 1, "tools": [TOOL]}),
    ],
)
def test_what_a_row_gives_its_template(fields: dict[str, Any], options: dict[str, Any]) -> None:
    assert parse_template_options(fields) == options


def with_parameters(value: Any) -> dict[str, Any]:
    return {"tools": [TOOL, {"type": "function", "function": {"name": "w", "parameters": value}}]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tools": {}}, 'tools: is a JSON object, not a list of {"type": "function"'),
        ({"tools": "w"}, "tools: is a text that is not JSON: Expecting value at character 1"),
        ({"tools": ["w"]}, "tools[0]: is a JSON string, not {"),
        ({"tools": [{"type": "function"}]}, "tools[0].name: is None; a tool is {"),
        ({"tools": [{"function": {"name": ""}}]}, "tools[0].function.name: is ''; a tool is {"),
        ({"tools": [{"function": None}]}, "tools[0].function: is a JSON null; a tool is {"),
        (with_parameters("x"), "tools[1].function.parameters: is a JSON string, not a JSON schema"),
        (
            with_parameters({"properties": {"a": {"properties": {"b": None}}}}),
            "tools[1].function.parameters: has the property 'b' with null for a schema, as a table fills in what "
            "another row's tools have; keep `tools` as JSON text",
        ),
        ({"documents": ["a text"]}, 'documents[0]: is a JSON string, not {"title"'),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs: is a JSON array, not an object"),
        (
            {"chat_template_kwargs": {"tools": []}},
            "chat_template_kwargs: holds 'tools'; write it as the row's own field",
        ),
    ],
)
def test_what_no_template_takes_is_refused_with_its_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_template_options(fields)
    assert str(caught.value).startswith(message)
