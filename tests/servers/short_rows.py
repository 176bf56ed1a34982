"""Rows for models that read a token a byte: short prompts, which a teacher reads with a word more."""

import json
from pathlib import Path

TEXTS = {"messages": "why", "teacher_messages": "why, then,", "list_messages": "why, then,"}
"""What the student reads, and the demo's two teachers, who want the same of it: it does not know whose a row is."""
RATE = 3e-3
"""The learning rate at which a tiny model's gap on them shrinks within 16 steps."""


def write_short_rows(path: Path, count: int) -> str:
    """As many rows, one teacher's and the other's in turn."""
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            asked = {key: [{"role": "user", "content": f"{text} {index}"}] for key, text in TEXTS.items()}
            file.write(json.dumps({**asked, "teacher": ("short", "list")[index % 2]}) + "\n")
    return str(path)


def on_short_rows(rows: str) -> list[str]:
    """The demo's sections, on the file `rows` of such rows."""
    return [
        f"data.path={rows}",
        f"data.eval_path={rows}",
        "data.max_eval_rows=128",
        "evaluators=[reverse_kl]",
        "student.dtype=float32",  # as the server computes, also on a CPU that is fast in bfloat16
        f"student.learning_rate={RATE}",
    ]
