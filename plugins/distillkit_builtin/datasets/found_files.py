"""Paths, folders and globs as the files that they stand for, in an order that is the same everywhere."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from distillkit import DataError
from distillkit.files.near_paths import did_you_mean
from distillkit_builtin.datasets.file_format import KNOWN, Content, FileFormat, format_of

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file, and what its name says that it holds."""

    path: Path
    format: FileFormat


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """What some paths stand for."""

    files: tuple[FoundFile, ...]
    skipped: tuple[Path, ...]
    """What a folder or a glob holds besides, whose suffix is not known."""

    def row_keys(self) -> Sequence[str]:
        """What row ids call each file: its path below the folder that all have in common; a single one nothing."""
        if len(self.files) == 1:
            return [""]
        paths = [Path(os.path.abspath(file.path)) for file in self.files]  # noqa: PTH100 - links stay what they are
        common = os.path.commonpath([path.parent for path in paths])
        return [path.relative_to(common).as_posix() for path in paths]


def find_files(paths: Sequence[str]) -> FoundFiles:
    """The files of all `paths`, one path after another. Raises DataError where one stands for none."""
    files: list[FoundFile] = []
    skipped: list[Path] = []
    named: dict[tuple[int, int], Path] = {}
    for path in paths:
        found = _files_of(path)
        skipped += found.skipped
        for file in found.files:
            _require_new(file.path, named)
        files += found.files
    return FoundFiles(tuple(files), tuple(skipped))


def _require_new(path: Path, named: dict[tuple[int, int], Path]) -> None:
    status = _status(path)
    if not S_ISREG(status.st_mode):  # a pipe or a device, which may wait, or never end
        raise DataError(f"{path}: cannot be read: it is no regular file, and rows are read more than once")
    before = named.setdefault((status.st_dev, status.st_ino), path)
    if before is not path:
        again = "it is named twice" if before == path else f"it is the same file as {before}"
        raise DataError(
            f"{path}: {again}, and its rows would be read twice; name it once (data.epochs repeats all rows)"
        )


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError as error:
        home = "; ~ is not replaced, write the whole path" if str(path).startswith("~") else ""
        raise DataError(f"{path}: no such file (looked from {Path.cwd()}){home or did_you_mean(path)}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL or half of a character in the name
        raise DataError(f"{str(path)!r}: no such file; no file can be called that") from error


def _files_of(given: str) -> FoundFiles:
    if given.startswith("hf://"):
        raise DataError(f"{given}: is no file; source `hf` reads it: `data.source: {{name: hf, path: {given!r}}}`")
    if ADDRESS.match(given):
        raise DataError(f"{given}: is an address, and files are read on this machine: fetch it, and give its path")
    path = Path(given)
    if _is_pattern(given) and not os.path.lexists(path):
        return _matched(given)
    if S_ISDIR(_status(path).st_mode):
        return _known(given, _walk(path), "holds")
    return FoundFiles((FoundFile(path, format_of(path.name)),), ())


def _is_pattern(given: str) -> bool:
    return glob.has_magic(given) and given.isprintable()


def _matched(pattern: str) -> FoundFiles:
    paths = [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207 - that one takes no `/data/*`
    if not paths:
        raise DataError(f"{pattern}: no file matches (looked from {Path.cwd()})")
    inside = (inner for path in paths for inner in (_walk(path) if path.is_dir() else [path]))
    return _known(pattern, set(inside), "matches")


def _known(given: str, paths: Iterable[Path], verb: str) -> FoundFiles:
    """The files of a folder or a glob whose suffixes are known. Raises DataError for none, or for several formats."""
    ordered = sorted(paths, key=lambda path: path.as_posix())
    files = [FoundFile(path, format_of(path.name)) for path in ordered]
    known = [file for file in files if file.format.content is not None]
    skipped = tuple(file.path for file in files if file.format.content is None)
    if not known:
        others = f" but {', '.join(path.name for path in skipped[:3])}" if skipped else ""
        raise DataError(
            f"{given}: {verb} no file of a suffix that is known{others}; these are: {KNOWN}. One that begins as JSON "
            "is read under any name, if it is named itself"
        )
    first: dict[Content | None, Path] = {}
    for file in known:
        first.setdefault(file.format.content, file.path)
    if len(first) > 1:
        each = ", ".join(f"{content} ({path})" for content, path in first.items())
        raise DataError(
            f"{given}: {verb} files of several formats: {each}. If they are the same rows, name one of them; if not, "
            f"name each: `data.path: [{', '.join(map(str, first.values()))}]`"
        )
    return FoundFiles(tuple(known), skipped)


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, also behind links to folders; one that leads back is gone once."""
    seen: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in names if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
