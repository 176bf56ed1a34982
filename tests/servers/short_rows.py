"""Rows for models that read a token a byte: short prompts, which a teacher reads with a word more."""

import json
from pathlib import Path

TEXTS = {"messages": "why", "teacher_messages": "why, then,", "list_messages": "why, then,"}
"""What the student reads, and the demo's two teachers, who want the same of it: it does not know whose a row is."""


def write_short_rows(path: Path, count: int) -> str:
    """As many rows, one teacher's and the other's in turn."""
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            asked = {key: [{"role": "user", "content": f"{text} {index}"}] for key, text in TEXTS.items()}
            file.write(json.dumps({**asked, "teacher": ("short", "list")[index % 2]}) + "\n")
    return str(path)
