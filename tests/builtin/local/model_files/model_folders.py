"""Directories of models, as `check` sees them."""

import json
from pathlib import Path

from distillkit.testing import make_context
from distillkit_builtin.local.student import LocalStudent

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def check(model: Path) -> None:
    LocalStudent(model=str(model), device="cpu", dtype="float32").check(make_context())


def set_config(model: Path, **keys: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))
