"""The examples that come with distillkit, and copies of them whose paths start in their own folder."""

from collections.abc import Sequence
from pathlib import Path

from distillkit.cli.scaffold import write_files
from distillkit.errors import InputError, suggest

NAMES_PATHS = {".py", ".yaml"}
"""The files of an example that say where its others are: from the root of a checkout."""


def examples_path() -> Path:
    """The directory with `routed_mopd/` and the others. Raises InputError if the installation lacks it."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "examples", package.parent / "examples"):  # in the wheel, in a checkout
        if candidate.is_dir():
            return candidate
    raise InputError(f"the examples are neither in {package} nor beside it; install distillkit again")


def example_names() -> list[str]:
    """What `--example` may name."""
    return sorted(config.parent.name for config in examples_path().glob("*/config.yaml"))


def copy_example(name: str, directory: Path) -> Sequence[Path]:
    """Copy an example into `directory`, to be used from there. Raises InputError for another name, or to overwrite."""
    names = example_names()
    if name not in names:
        raise InputError(f"--example {name}: there is no such example; {suggest(name, names)}")
    source = examples_path() / name
    files = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return write_files(directory, {path.relative_to(source).as_posix(): _text(path, name) for path in files})


def _text(path: Path, name: str) -> str:
    text = path.read_text(encoding="utf-8")
    return text.replace(f"examples/{name}/", "") if path.suffix in NAMES_PATHS else text
