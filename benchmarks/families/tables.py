"""The figures as tables in Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Column = tuple[str, Callable[[Row], str]]


def tables(rows: Sequence[Row], machine: str) -> str:
    """A table for each part that has rows, and what failed."""
    texts = [machine]
    for part, columns in (("exact", EXACT), ("speed", SPEED)):
        if mine := [row for row in rows if row["part"] == part]:
            texts.append(_table(mine, columns))
    return "\n\n".join(texts)


def _apart(name: str) -> Callable[[Row], str]:
    return lambda row: f"{row[name]['max']:.1e} / {row[name]['mean']:.1e}" if name in row else ""


def _norms(row: Row) -> str:
    if "gradient_norm" not in row:
        return ""
    return f"{row['gradient_norm']:.5g} / {row['reference_gradient_norm']:.5g}"


def _number(name: str, form: str) -> Callable[[Row], str]:
    return lambda row: format(row[name], form) if name in row else ""


def _remarks(row: Row) -> str:
    said = [row[name] for name in ("error", "failed") if name in row]
    said += [name for name in ("packed", "fast") if row.get(name)] + row.get("notices", [])
    return "; ".join(said).replace("|", "/")


EXACT: tuple[Column, ...] = (
    ("student, nats (max / mean)", _apart("student")),
    ("teacher", _apart("teacher")),
    ("mismatch", _number("mismatch", ".1e")),
    ("gradient norm / reference", _norms),
    ("remarks", _remarks),
)
SPEED: tuple[Column, ...] = (
    ("tokens/s", _number("tokens_per_second", ",.0f")),
    ("training step, s", _number("seconds", ".3f")),
    ("first step", _number("first_seconds", ".1f")),
    ("remarks", _remarks),
)


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    lines = ["| family | case | " + " | ".join(name for name, _ in columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        cells = [row["family"], row["case"], *(text(row) for _, text in columns)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
