"""Templates that read no column: meant so now and then, and more often a column's name without its braces."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from distillkit.data.row_format.column_templates import of_column
from distillkit.data.row_format.row_template import compile_template
from distillkit.files.strict_json import shortened

PROMPTS = ("prompt", "messages")
MAY_BE_WORDS = frozenset({"system", "teacher_system", "teacher"})
"""Keys whose text may be the same for every row, and may happen to be the name of a column."""
IN_BRACES = re.compile(r"(?<!\{)\{\s*(\w+)\s*\}(?!\})")


def meant_columns(mapping: Mapping[str, JsonValue], columns: Sequence[str]) -> Iterator[str]:
    """What is wrong with each template that reads no column, and names one without braces or in single ones."""
    for key, value in _templates(mapping):
        if compile_template(value, key).reads:
            continue
        for text in _texts(value):
            found = IN_BRACES.search(text)
            name = found[1] if found else text.strip()
            if name and name in columns:
                template = of_column(name)
                meant = text.replace(found[0], template) if found else template
                yield (
                    f"{key}: {_shown(text)} is the same text for every row, and `{shortened(name, 60)}` is a column; "
                    f"did you mean {_shown(meant)}?"
                )


def same_for_all(mapping: Mapping[str, JsonValue]) -> Iterator[str]:
    """What to tell the user of a prompt that reads no column."""
    for key in PROMPTS:
        if mapping.get(key) is not None and not compile_template(mapping[key], key).reads:
            yield f"data.format.{key} reads no column: every row has the same prompt"


def _shown(text: str) -> str:
    return shortened(json.dumps(text, ensure_ascii=False), 200)


def _templates(mapping: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    for key, value in mapping.items():
        if key in MAY_BE_WORDS:
            continue
        if isinstance(value, dict):  # of a field each, or of a route
            yield from ((f"data.format.{key}.{name}", inner) for name, inner in value.items())
        else:
            yield f"data.format.{key}", value


def _texts(value: JsonValue) -> Iterator[str]:
    """The texts of a template: itself, or the contents of its messages."""
    if isinstance(value, str):
        yield value
    for message in value if isinstance(value, list) else ():
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            yield str(message["content"])
