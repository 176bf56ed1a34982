"""Rows in files."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from distillkit import DataError, Dataset, RawRow, RowFile, UnreadableRow
from distillkit_builtin.datasets.file_kind import HEAD, other_kind
from distillkit_builtin.datasets.json_lines import read_json_lines

ROWS = "rows are JSON lines: each line is a JSON object with `messages`"


class FilesDataset(Dataset):
    """Rows in a file of JSON lines."""

    name: ClassVar[str] = "files"

    path: str = Field(description="The file.")

    def place(self) -> str:
        """The path."""
        return self.path

    def read(self) -> Iterator[RawRow | UnreadableRow]:
        """Every row. Raises DataError for a file that is absent, unreadable, empty or no file."""
        path, rows = Path(self.path), 0
        try:
            mode = path.stat().st_mode
            if stat.S_ISREG(mode):
                with path.open("rb") as file:
                    if (kind := other_kind(file.read(HEAD))) is not None:
                        raise DataError(f"{path}: {kind}; {ROWS}")
                for row in read_json_lines(RowFile(self.path, unit="line", path=path)):
                    rows += 1
                    yield row
        except DataError:  # a ValueError, too
            raise
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file (looked from {Path.cwd()})") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:  # a NUL or half of a character in the name
            raise DataError(f"{str(path)!r}: no such file; no file can be called that") from error
        if not stat.S_ISREG(mode):  # a pipe or a device, which may wait, or never end
            raise DataError(f"{path}: cannot be read: it is no regular file, and rows are read more than once")
        if not rows:
            raise DataError(f"{path}: holds no rows; {ROWS}")
