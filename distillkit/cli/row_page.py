"""`distillkit check`: one row as its source has it, and the fields that `data.format` makes of it."""

import json
from collections.abc import Mapping

from pydantic import JsonValue
from rich.console import Console
from rich.text import Text

from distillkit.files.printable import printable
from distillkit.files.strict_json import shortened
from distillkit.preflight.run_rows import RoutedRows

SHOWN_COLUMNS, WIDEST_NAME = 20, 24
SHOWN = 2000
"""Characters of a value, before it is cut at the edge of the terminal."""


def show_row(rows: RoutedRows, console: Console) -> None:
    """Print the first row's columns, what is made of them, and its route."""
    row = rows.rows.row(0)
    route, _ = rows.pipeline.chat(row)
    columns = next(rows.rows.columns([0]))
    console.rule("a row, before and after", align="left")
    console.print(f"{row.place} holds")
    _show_fields(columns, console)
    if not rows.read_as.is_plain:
        made = {name: value for name, value in row.fields.items() if name not in columns or value != columns[name]}
        console.print("data.format makes of it")
        _show_fields(made, console)
    console.print(f"it is scored by {', '.join(route.teachers)}")


def _show_fields(fields: Mapping[str, JsonValue], console: Console) -> None:
    """A line each: the name, and as much of the value as the terminal is wide."""
    names = {name: Text(printable(shortened(name, SHOWN)), style="bold") for name in list(fields)[:SHOWN_COLUMNS]}
    width = min(WIDEST_NAME, max((text.cell_len for text in names.values()), default=0))
    for name, text in names.items():
        text.truncate(width, overflow="ellipsis", pad=True)
        value = Text(_shown(fields[name]))
        value.truncate(max(20, console.width - width - 4), overflow="ellipsis")
        console.print(Text.assemble("  ", text, "  ", value))
    if len(fields) > SHOWN_COLUMNS:
        console.print(f"  and {len(fields) - SHOWN_COLUMNS} more")


def _shown(value: JsonValue) -> str:
    """A value on one line; of messages, who says what."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value):
        turns = (item for item in value if isinstance(item, dict))
        return " | ".join(f"{_shown(turn['role'])}: {_shown(turn.get('content'))}" for turn in turns)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(shortened(text, SHOWN))
