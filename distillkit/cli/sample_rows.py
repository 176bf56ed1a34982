"""The sample data of `distillkit init`: small enough to learn something from on a CPU, in two minutes."""

from collections.abc import Sequence

Row = dict[str, object]
NUMBERS = [(a, b) for a in range(2, 12) for b in range(2, 10)]
SHARE_HELD_OUT = 5
"""One of so many rows is held out."""
SUMS_SHOWN = ((12, 5), (20, 7), (14, 13))
LETTERS_SHOWN = ((12, 15), (20, 17), (14, 23))


def sample_rows(teachers: int) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows held out, for one teacher or routed to one of two."""
    train, held_out = _split([_sum(*pair) for pair in NUMBERS])
    if teachers == 1:
        return train, held_out
    letters, letters_held_out = _split([_letter(*pair) for pair in NUMBERS])
    return [*map(_routed, train), *letters], [*map(_routed, held_out), *letters_held_out]


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    held_out = rows[::SHARE_HELD_OUT]
    return [row for row in rows if row not in held_out], list(held_out)


def _sum(a: int, b: int) -> Row:
    """A sum, and what the teacher reads: a few that are answered come first."""
    shown = [(_add(m, n), f"{m} + {n} = {m + n}\nFinal: {m + n}") for m, n in SUMS_SHOWN]
    asked = _add(a, b)
    return {"messages": _chat(asked), "teacher_messages": _chat(asked, shown), "expected_answer": str(a + b)}


def _routed(row: Row) -> Row:
    return row | {"teacher": "arithmetic"}


def _letter(boxes: int, flat: int) -> Row:
    """A note to write, and what its teacher reads."""
    shown = [(_write(m, n), f"Dear neighbour, {m} boxes came for you. Sam\nFinal: {n}") for m, n in LETTERS_SHOWN]
    asked = _write(boxes, flat)
    row: Row = {"messages": _chat(asked), "writing_messages": _chat(asked, shown), "expected_answer": str(flat)}
    return row | {"teacher": "writing"}


def _add(a: int, b: int) -> str:
    return f"What is {a} + {b}? End with one line: Final: <answer>"


def _write(boxes: int, flat: int) -> str:
    return f"Write to flat {flat} that {boxes} boxes arrived for them. End with one line: Final: <flat>"


def _chat(question: str, shown: Sequence[tuple[str, str]] = ()) -> list[dict[str, str]]:
    turns = [(role, text) for turn in shown for role, text in zip(("user", "assistant"), turn, strict=True)]
    return [{"role": role, "content": text} for role, text in [*turns, ("user", question)]]
