"""Held-out rows, for evaluators."""

from pydantic import JsonValue

from distillkit import ChatPrompts, RoutedRow
from distillkit.testing import (
    make_row,
)
from distillkit.types import Route


def held_out(content: str = "6 * 7? End with Final: <answer>.", *, route: str = "a", **fields: JsonValue) -> RoutedRow:
    row = make_row(content, line=len(fields) + 1, **fields)
    return RoutedRow(row, Route.to(route), ChatPrompts(row.messages, {route: row.messages}))
