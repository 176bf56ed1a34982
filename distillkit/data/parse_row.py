"""One row of a dataset as a Row: the only place that sees raw dicts."""

import json
from collections.abc import Mapping

from pydantic import JsonValue

from distillkit.data.message_roles import OTHER_NAMES, ROLES_OF_MESSAGES
from distillkit.data.row_format.made_of import AS_THEY_ARE, UNKNOWN, MadeOf, leave_out
from distillkit.data.row_format.row_format import RowFormat
from distillkit.data.tool_calls import (
    from_json_text,
    is_given,
    parse_tool_calls,
    require_answers_to_calls,
    without_nulls,
)
from distillkit.errors import RowError
from distillkit.files.strict_json import ContentError, Location, json_type, parse_json, shortened
from distillkit.raw_row import RawRow
from distillkit.types import Message, Messages, Row

NOTHING: frozenset[str] = frozenset()
REASONING = ("reasoning_content", "reasoning", "thinking")
"""What an assistant's message may hold instead of content; transformers gives templates one under each name."""


def parse_row(raw: RawRow, row_id: str, row_format: RowFormat | None = None) -> Row:
    """A raw row as a Row; `row_format` makes fields of its columns. Raises RowError naming the field that is wrong."""
    fields = parse_columns(raw)
    if row_format is not None:
        fields = row_format.apply(fields)
    if "messages" not in fields:
        has = shortened(", ".join(map(repr, fields)) or "no fields", 200)
        raise RowError("messages", f"is missing; the row has {has}", leave_out("messages is defined"))
    made_of = row_format.made_of if row_format else AS_THEY_ARE["messages"]
    try:
        messages = parse_messages(fields["messages"], "messages", made_of)
    except RowError as error:
        said = str(error).removeprefix(f"{error.field}: ")
        raise RowError(error.field, f"{said}{made_of.said}", error.fix) from error
    return Row(row_id, raw.place, messages, fields, mapped=row_format.mapped if row_format else NOTHING)


def parse_columns(raw: RawRow) -> Mapping[str, JsonValue]:
    """What a raw row holds, by its columns. Raises RowError."""
    text = raw.text
    try:
        value = parse_json(text.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise RowError(
            raw.file.unit, f"is not UTF-8: byte {error.start} is 0x{text[error.start]:02x}; save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise RowError(
            raw.file.unit, f"is not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
        ) from error
    except ContentError as error:
        raise RowError(_field(error.location) or raw.file.unit, str(error)) from error
    if not isinstance(value, dict):
        raise RowError(raw.file.unit, f"is a JSON {json_type(value)}, not an object with `messages`")
    return value


def _field(location: Location) -> str:
    """A location as error messages name it: `messages[0].content`."""
    parts = (f"[{key}]" if isinstance(key, int) else f".{shortened(key, 60)}" for key in location)
    return shortened("".join(parts).removeprefix("."), 200)


def parse_messages(value: JsonValue, name: str, made_of: MadeOf | None = None) -> Messages:
    """A row's list of chat messages, or its JSON text, ready to be answered by the assistant. Raises RowError.

    `made_of` is what they were made of, for the lines to write; None: the row holds them under `name`.
    """
    made_of = made_of or AS_THEY_ARE.get(name, UNKNOWN)
    if isinstance(value, str) and value.lstrip().startswith("["):  # as CSV has it
        value = from_json_text(value, name)
    if not isinstance(value, list):
        raise RowError(name, f"is a JSON {json_type(value)}, not a list of messages", _fix_of(value, name))
    if not value:
        fix = made_of.leave_out("| length > 0") if name == "messages" else ""
        raise RowError(name, "is empty; it needs at least one user message", fix)
    messages = tuple(filter(None, map(_plain_message, value)))
    if len(messages) < len(value):
        messages = tuple(_parse_message(message, f"{name}[{i}]", made_of) for i, message in enumerate(value))
        require_answers_to_calls(messages, name)
    if messages[-1].role == "assistant":
        raise RowError(
            name,
            "ends with an assistant message; the student writes that turn, so end with the user's",
            made_of.by_filters("without_answer"),
        )
    return messages


def _fix_of(value: JsonValue, name: str) -> str:
    """What to write for what is no list of messages."""
    if value is None and name == "messages":
        return leave_out("messages is not none")
    return _as_prompt(name) if isinstance(value, str) else ""


def _as_prompt(name: str) -> str:
    key = {"messages": "prompt", "teacher_messages": "teacher_prompt"}.get(name)
    return "" if key is None else f'data.format: {{{key}: "{{{{ {name} }}}}"}}'


def _plain_message(value: JsonValue) -> Message | None:
    """Of the shape that nearly all have, a known role and a text; None for others, which are looked at more closely."""
    if isinstance(value, dict) and len(value) == 2:
        role, content = value.get("role"), value.get("content")
        if isinstance(role, str) and role in ROLES_OF_MESSAGES and isinstance(content, str):
            return Message(role, content)
    return None


def _parse_message(value: JsonValue, name: str, made_of: MadeOf) -> Message:
    if plain := _plain_message(value):
        return plain
    if not isinstance(value, dict):
        raise RowError(name, f'is a JSON {json_type(value)}, not {{"role": ..., "content": ...}}')
    role = value.get("role")
    if role not in ROLES_OF_MESSAGES:
        if role is None and "from" in value and "value" in value:
            raise RowError(
                f"{name}.role",
                "is missing; the message has `from` and `value`, as in ShareGPT's format",
                made_of.by_filters("from_sharegpt", "without_answer"),
            )
        instead = OTHER_NAMES.get(role) if isinstance(role, str) else None
        hint = f"; write {instead!r}" if instead else ""
        known = ", ".join(ROLES_OF_MESSAGES)
        raise RowError(f"{name}.role", f"is {shortened(repr(role), 60)}, not one of {known}{hint}")
    extra = _parse_extra(value, name)
    if value.get("content") is None and role == "assistant" and not extra.keys().isdisjoint(("tool_calls", *REASONING)):
        return Message(role, "", extra)
    if "content" not in value:
        raise RowError(f"{name}.content", "is missing")
    return Message(str(role), _text_of(value["content"], f"{name}.content"), extra)


def _parse_extra(value: Mapping[str, JsonValue], name: str) -> Mapping[str, JsonValue]:
    """What a message holds besides role and content; a key that holds null is as one that is not there."""
    extra = {key: item for key, item in without_nulls(value).items() if key not in ("role", "content")}
    if "function_call" in extra:
        raise RowError(
            f"{name}.function_call",
            'is the form before `tool_calls`; write "tool_calls": [{"type": "function", "function": {...}}], and its '
            "answer under the role 'tool'",
        )
    if not is_given(extra.get("tool_call_id")):
        extra.pop("tool_call_id", None)
    if "tool_calls" in extra:
        calls = parse_tool_calls(extra.pop("tool_calls"), f"{name}.tool_calls")
        if calls and value["role"] != "assistant":
            raise RowError(f"{name}.tool_calls", f"stands in a message of role {value['role']!r}; only assistants call")
        extra |= {"tool_calls": calls} if calls else {}
    return extra


def _text_of(content: JsonValue, name: str) -> str:
    """A message's text; a list of OpenAI text parts is joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowError(name, f"is a JSON {json_type(content)}, not text")
    return "".join([_text_of_part(part, f"{name}[{i}]") for i, part in enumerate(content)])


def _text_of_part(part: JsonValue, name: str) -> str:
    if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
        raise RowError(name, 'is not {"type": "text", "text": ...}; only text can be distilled')
    more = without_nulls(part).keys() - {"type", "text"}
    if more:
        raise RowError(name, f"holds {shortened(', '.join(map(repr, sorted(more))), 60)} beside its text; take it out")
    return str(part["text"])
