"""Paths of the machine that a run was made on: taken out of texts that leave it, and looked for in every byte."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pydantic import JsonValue

from distillkit.run_directory.saved_run import paths_start_at

READ_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class MachinePaths:
    """Folders that nobody else is to hear of."""

    folders: tuple[str, ...]
    """Absolute, without a slash at the end, the longest first."""

    @classmethod
    def of(cls, folders: Iterable[Path]) -> "MachinePaths":
        """These folders, as they are written and as they are found; not the root of all."""
        written = {str(path) for folder in folders for path in (folder.absolute(), folder.resolve())}
        return cls(tuple(sorted(written - {"/"}, key=lambda folder: (-len(folder), folder))))

    @property
    def needles(self) -> tuple[str, ...]:
        """What a text with such a path has in it; `/root` alone may be a word of a vocabulary."""
        return tuple(folder if folder.count("/") > 1 else f"{folder}/" for folder in self.folders)

    def scrubbed(self, text: str) -> str:
        """The text with the last part of each such path in the place of the whole."""
        for needle in self.needles:
            text = re.sub(re.escape(needle) + r"[^\s\"'<>|,;)\]}]*", lambda found: Path(found.group()).name, text)
        return text

    def found_in(self, content: Path | bytes) -> str | None:
        """The first such folder that stands in a file or in bytes; None: none does."""
        sought = {form.encode(): needle for needle in self.needles for form in _forms(needle)}
        kept, most = b"", max(map(len, sought), default=1)
        for piece in _pieces(content):
            window = kept + piece
            for form, needle in sought.items():
                if form in window:
                    return needle
            kept = window[-most:]
        return None


def folders_of_run(run_dir: Path, config: Mapping[str, JsonValue]) -> Iterator[Path]:
    """Those that texts of a run may name: the user's, where this process and the run began, and of paths in its config.

    Raises OSError where its config cannot be read.
    """
    yield from (Path.home(), Path.cwd(), run_dir)
    began = paths_start_at(run_dir)
    if began is not None:
        yield began
    yield from (path.parent for path in _absolute(config))


def _absolute(value: object) -> Iterator[Path]:
    """Whole paths among what a config says."""
    if isinstance(value, str) and value.startswith("/") and len(Path(value).parts) > 2:
        yield Path(value)
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _absolute(each)


def _forms(path: str) -> set[str]:
    """As it is, as JSON may write it in ASCII, and as addresses do."""
    return {path, json.dumps(path)[1:-1], quote(path)}


def _pieces(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(READ_AT_ONCE):
            yield piece
