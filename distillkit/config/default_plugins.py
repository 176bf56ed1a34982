"""Default plugins: filled in for the keys that a short config leaves out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillkit.config.data_config import DataConfig, Paths
from distillkit.roles.student import Student

SAVED_SPLIT = ("dataset_info.json", "state.json")
"""What `Dataset.save_to_disk` writes beside the rows."""
SAVED_DICT = "dataset_dict.json"
"""What `DatasetDict.save_to_disk` writes beside the folders of its splits."""
DEFAULT_PROMPTS = "messages"
FILLED_IN: Mapping[str, str] = {
    "data.source": "`hf` for `hf://...` and folders that `save_to_disk` wrote, else `files`",
    "router": "`single` for one teacher, `field` for several",
    "prompts": f"`{DEFAULT_PROMPTS}`",
    "loss": "`importance_sampling`",
    "evaluators": "`[reverse_kl]` where there are held-out rows, else `[]`",
    "sinks": "`[console, report]`",
    "teachers[].scorer": "the one named like the student",
}
"""What `with_defaults` makes of a key that a config leaves out, in words, for the reference."""


HELD_OUT_KEYS = ("eval_path", "eval_source", "held_out_rows")
"""Each of which gives a run held-out rows."""


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the plugins that a short config leaves out; options without a `name` are the default plugin's.

    The router is `field` for several teachers and `single` for one; a teacher's scorer is the one named like the
    student; evaluators are `reverse_kl` where there are held-out rows.
    """
    filled: dict[str, Any] = dict(values)
    teachers = filled.get("teachers")
    scorer = _name_of(filled.get("student"))
    several = isinstance(teachers, list | tuple) and len(teachers) > 1
    if isinstance(teachers, list | tuple):
        # Where the student is wrong, that is said once, and not again as a scorer that is missing.
        filled["teachers"] = [_with_scorer(teacher, scorer or "local") for teacher in teachers]
    filled["router"] = _named(filled.get("router"), "field" if several else "single")
    if _holds_out(filled.get("data")):
        filled.setdefault("evaluators", ["reverse_kl"])
    filled.setdefault("sinks", ["console", "report"])
    filled["prompts"] = _named(filled.get("prompts"), DEFAULT_PROMPTS)
    filled["loss"] = _named(filled.get("loss"), "importance_sampling")
    return filled


def default_source(path: Paths) -> str:
    """The dataset plugin for a path: `hf` for `hf://...` and for a folder that `save_to_disk` of `datasets` wrote."""
    if not isinstance(path, str):
        return "files"
    folder, mark, _ = path.rpartition("#")  # a split behind it, if the `#` is not of the folder's own name
    saved = is_saved_dataset(Path(path)) or (mark and is_saved_dataset(Path(folder)))
    return "hf" if path.startswith("hf://") or saved else "files"


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote this folder."""
    try:
        return (folder / SAVED_DICT).is_file() or all((folder / name).is_file() for name in SAVED_SPLIT)
    except (OSError, ValueError):  # no path at all, which is said where it is read
        return False


def _holds_out(data: object) -> bool:
    if isinstance(data, DataConfig):
        return data.holds_out
    return isinstance(data, Mapping) and any(data.get(key) for key in HELD_OUT_KEYS)


def _with_scorer(teacher: object, name: str) -> object:
    return {**teacher, "scorer": _named(teacher.get("scorer"), name)} if isinstance(teacher, Mapping) else teacher


def _named(choice: object, default: str) -> object:
    if choice is None:
        return default
    return {"name": default, **choice} if isinstance(choice, Mapping) else choice


def _name_of(choice: object) -> str | None:
    if isinstance(choice, Student):
        return choice.name
    if isinstance(choice, Mapping):
        name = choice.get("name")
        return name if isinstance(name, str) else None
    return choice if isinstance(choice, str) else None
