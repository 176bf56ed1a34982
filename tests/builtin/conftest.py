"""A prepared run of which a test gives rows and templates."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.chat_templates import TEMPLATES

from distillkit import Registry, RunConfig
from distillkit.preflight.prepared_run import PreparedRun, prepare_run

Make = Callable[..., RunConfig]
OF_SO_FEW_ROWS = ("no held-out rows", "earlier row", "prompt_groups_per_step")
"""What notes say that have nothing to do with what is in the prompts."""


@pytest.fixture
def prepared(
    local_config: Make, jsonl: Callable[..., str], tiny_model: str, other_tiny_model: str, tmp_path: Path
) -> Callable[..., PreparedRun]:
    """A prepared run on rows, with templates of student and teacher that are named."""

    def prepare(rows: Sequence[Any], student: str = "chatml_tools", teacher: str = "", **over: Any) -> PreparedRun:
        teacher = teacher or student
        models = {name: tmp_path / name for name in {student, teacher}}
        for name, folder in models.items():
            folder.mkdir(exist_ok=True)
            for file in Path(tiny_model).iterdir():
                (folder / file.name).unlink(missing_ok=True)
                (folder / file.name).symlink_to(file)
            (folder / "chat_template.jinja").unlink(missing_ok=True)
            (folder / "chat_template.jinja").write_text(TEMPLATES.get(name, name))
        values = {
            "data": {"path": jsonl(rows), **over.pop("data", {})},
            "student": {"model": str(models[student])},
            "teachers": [
                {"model": str(models[teacher]), "route_value": "t", "scorer": {"name": "local", "device": "cpu"}}
                | over.pop("of_teacher", {})
            ],
        }
        config = local_config(**values, **over)
        run = prepare_run(config, Registry.discover(), lambda note: None)
        of_prompts = (note for note in run.notices if not any(other in note.message for other in OF_SO_FEW_ROWS))
        by_line = (replace(note, message=re.sub(r"\S+jsonl:(\d+)", r"line \1", note.message)) for note in of_prompts)
        return replace(run, notices=tuple(by_line))

    return prepare
