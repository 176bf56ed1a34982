"""Addresses of Hugging Face datasets: `hf://org/name/config#split` on the hub, `folder#split` on the disk."""

import re
from dataclasses import dataclass
from pathlib import Path

from distillkit import DataError
from distillkit.config.default_plugins import SAVED_DICT, SAVED_SPLIT, is_saved_dataset

SCHEME = "hf://"
FORM = "hf://org/name, hf://org/name/config, either with #split behind it"
PART = re.compile(r"[\w.-]{1,96}", re.ASCII)
"""A user's, a dataset's or a config's name."""
SPLIT = re.compile(r"\w+(\.\w+)*")
"""As `datasets` names its splits."""


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A dataset on the hub."""

    repo: str
    """`org/name`, or `name` alone for the oldest ones."""
    config: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        """As a config has it."""
        return SCHEME + "/".join(filter(None, (self.repo, self.config))) + (f"#{self.split}" if self.split else "")


@dataclass(frozen=True, slots=True)
class SavedAddress:
    """A folder that `save_to_disk` wrote."""

    folder: Path
    split: str | None = None


def parse_hub_address(text: str) -> HubAddress:
    """What an address that begins with `hf://` names. Raises ValueError for one that names nothing."""
    name, mark, split = text.removeprefix(SCHEME).partition("#")
    parts = name.split("/")
    if parts[0] == "datasets" and len(parts) > 2:
        raise DataError(f"{shown(text)}: leave `datasets/` out: {FORM}")
    if "@" in name:
        raise DataError(
            f"{shown(text)}: a revision is an option of its own: `data.source: {{name: hf, revision: ...}}`"
        )
    if len(parts) > 3 or not all(PART.fullmatch(part) and part.strip(".") for part in parts):
        raise DataError(f"{shown(text)} is no address of a dataset: {FORM}")
    return HubAddress("/".join(parts[:2]), parts[2] if len(parts) > 2 else None, _split(text, split) if mark else None)


def find_saved(text: str) -> SavedAddress:
    """The folder that `save_to_disk` wrote that `text` names. Raises DataError if it names none."""
    name, mark, split = text.rpartition("#")
    try:
        if is_saved_dataset(Path(text)):  # a `#` may belong to the folder's own name
            return SavedAddress(Path(text))
        folder = Path(name if mark else text)
        if not mark or not is_saved_dataset(folder):
            raise DataError(f"{shown(text)}: {_why_not(folder)}")
        return SavedAddress(folder, _split(text, split))
    except OSError as error:
        raise DataError(f"{shown(text)} cannot be read: {error.strerror}") from error


def shown(text: str) -> str:
    """A text of the user's as messages show it: in quotes, not too long, and printable."""
    return repr(text if len(text) <= 200 else f"{text[:200]}...")


def _split(text: str, split: str) -> str:
    if not SPLIT.fullmatch(split):
        more = "; one whole split is read, and data.max_rows takes its first rows" if split else ""
        raise DataError(f"{shown(text)}: {shown(split)} is no name of a split{more}")
    return split


def _why_not(folder: Path) -> str:
    if not folder.is_dir():
        return f"no such folder (looked from {Path.cwd()}); a dataset on the hub is {FORM}"
    return (
        f"no folder that `save_to_disk` wrote, which has {' and '.join(SAVED_SPLIT)}, or {SAVED_DICT}; files of rows "
        "(JSON, CSV, Parquet) are read by `data.path`, without `name: hf`"
    )
