"""Configs as files."""

from pathlib import Path

SHORT = """
data: prompts.jsonl
student: {name: local, model: s}
teachers:
  - {model: t}
"""


def write(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
