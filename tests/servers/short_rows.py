"""Rows for models that read a token a byte: short prompts, which a teacher reads with a word more."""

import json
from pathlib import Path

LONGER = {"teacher_messages": "why, then,", "list_messages": "so: why"}
"""What each of the demo's two teachers reads where the student reads `why`."""


def write_short_rows(path: Path, count: int) -> str:
    """As many rows, one teacher's and the other's in turn; each is of any teacher that reads `teacher_messages`."""
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            texts = {"messages": "why", **LONGER}
            asked = {key: [{"role": "user", "content": f"{text} {index}"}] for key, text in texts.items()}
            file.write(json.dumps({**asked, "teacher": ("short", "list")[index % 2]}) + "\n")
    return str(path)
