"""Rows with tools, and what is read of them."""

from typing import Any

from distillkit.preflight.prepared_run import PreparedRun

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
WITH_CALL: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "sun", "tool_call_id": "abcdefghi"},
]


def ask(content: str = "hi", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], **fields}


def shown(run: PreparedRun, row: int = 0) -> tuple[str, str]:
    """What student and teacher read."""
    (prompts,) = run.render([run.dataset.row(row)])
    show = run.renderer.student.tokenizer.show
    return show(prompts.student.tolist()), show(prompts.teachers["t"].tolist())
