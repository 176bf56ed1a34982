"""Jinja filters for what rows commonly hold: JSON in a cell, chats that end with the answer, chats of ShareGPT."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Undefined

from distillkit.data.message_roles import OTHER_NAMES, ROLES_OF_MESSAGES
from distillkit.files.strict_json import ContentError, json_type, parse_json, said_of_decoding, shortened

CALLS = frozenset({"function_call", "tool_call"})
"""What others call a turn that is a call of a tool: its text is no content."""
SHAREGPT_ROLES: Mapping[str, str] = {name: name for name in ROLES_OF_MESSAGES} | {
    name: role for name, role in OTHER_NAMES.items() if name not in CALLS
}
"""What `from` of a turn is as a role."""


class TemplateValueError(ValueError):
    """A template was given, or makes, something that it cannot. The message is the end of a sentence."""


def from_json(value: Any) -> Any:  # noqa: ANN401 - JSON
    """What a text of JSON holds, such as a cell of a table; null for an empty one, and other values as they are."""
    if not isinstance(value, str):
        return _defined(value)
    if not value.strip():
        return None
    try:
        return parse_json(value)
    except json.JSONDecodeError as error:
        raise TemplateValueError(f"from_json: is no JSON: {said_of_decoding(error)}") from error
    except ContentError as error:
        raise TemplateValueError(f"from_json: {error}") from error


def without_answer(turns: Any) -> list[Any]:  # noqa: ANN401 - JSON
    """A chat's turns without the last one, where that is the assistant's."""
    chat = _list_of(turns, "without_answer")
    ends = bool(chat) and isinstance(chat[-1], dict) and chat[-1].get("role") == "assistant"
    return chat[:-1] if ends else chat


def from_sharegpt(turns: Any) -> list[Any]:  # noqa: ANN401 - JSON
    """ShareGPT's turns of `from` and `value` as messages of `role` and `content`; other keys stay."""
    return [_message(turn, index) for index, turn in enumerate(_list_of(turns, "from_sharegpt"))]


def _message(turn: object, index: int) -> dict[str, Any]:
    where = f"from_sharegpt: turn {index + 1}"
    if not (isinstance(turn, dict) and "from" in turn and "value" in turn):
        raise TemplateValueError(f"{where} is no object with `from` and `value`")
    said = turn["from"]
    role = SHAREGPT_ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        call = (
            "; write a call as `tool_calls` of an assistant's message"
            if isinstance(said, str) and said in CALLS
            else ""
        )
        known = ", ".join(SHAREGPT_ROLES)
        raise TemplateValueError(f"{where} is from {shortened(repr(said), 60)}, not one of {known}{call}")
    if "role" in turn or "content" in turn:
        raise TemplateValueError(f"{where} holds `role` or `content` too; which one is meant is not said")
    return {"role": role, "content": turn["value"], **{k: v for k, v in turn.items() if k not in ("from", "value")}}


def _list_of(value: Any, name: str) -> list[Any]:  # noqa: ANN401 - JSON
    if not isinstance(_defined(value), list):
        raise TemplateValueError(f"{name}: wants a list of turns, not a JSON {json_type(value)}")
    return value  # type: ignore[no-any-return]


def _defined(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The value. Raises UndefinedError, as all that is done with an undefined name does."""
    return str(value) if isinstance(value, Undefined) else value


FILTERS: Mapping[str, Callable[..., Any]] = {
    "from_json": from_json,
    "without_answer": without_answer,
    "from_sharegpt": from_sharegpt,
}
