"""Dataset `hf`: what the library `datasets` knows, on the Hugging Face hub or saved in a folder."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import ClassVar

from pydantic import Field, PrivateAttr, field_validator

from distillkit import DataError, Dataset, MissingExtraError, RawRow, RowFile, UnreadableRow
from distillkit_builtin.datasets.arrow_rows import arrow_rows
from distillkit_builtin.datasets.hf_address import SCHEME, find_saved, parse_hub_address
from distillkit_builtin.datasets.hf_columns import left_out, plain_batches
from distillkit_builtin.datasets.hf_errors import library_errors
from distillkit_builtin.datasets.hf_hub import open_on_hub
from distillkit_builtin.datasets.hf_quiet import quiet
from distillkit_builtin.datasets.hf_saved import open_saved
from distillkit_builtin.datasets.hf_split import OpenedSplit
from distillkit_builtin.file_errors import one_line


class HuggingFaceDataset(Dataset):
    """A dataset on the Hugging Face hub, or a folder that `save_to_disk` of the library `datasets` wrote.

    Of a dataset on the hub the newest commit is read, or that of `revision`, into the cache of `datasets` (HF_HOME).
    Labels (`ClassLabel`) are read by their names, times in ISO format; columns of images, audio or other bytes are left
    out. No code that comes with a dataset is run.
    """

    name: ClassVar[str] = "hf"

    path: str = Field(
        examples=["hf://org/name#train"],
        min_length=1,
        description="`hf://org/name`, `hf://org/name/config`, or a folder that `save_to_disk` wrote; `#split` behind "
        "it where there are several.",
    )
    revision: str | None = Field(
        None,
        min_length=1,
        description="A commit, tag or branch of a dataset on the hub; null: the newest of `main`.",
    )

    _commit: str | None = PrivateAttr(None)
    _notes: tuple[str, ...] = PrivateAttr(())

    @field_validator("path")
    @classmethod
    def _names_something(cls, path: str) -> str:
        if path.startswith(SCHEME):
            parse_hub_address(path)
        return path

    def place(self) -> str:
        """Its address or folder."""
        return self.path

    def notes(self) -> Sequence[str]:
        """Which commit was read, and which columns are left out."""
        return self._notes

    def read(self) -> Iterator[RawRow | UnreadableRow]:
        """Every row of the split, a few at a time from the memory-mapped file."""
        require_extra()
        opened = self._open()
        omitted = left_out(opened.rows.features)
        self._notes = tuple(_notes(opened, omitted, self.revision))
        if len(omitted) == len(opened.rows.features):
            raise DataError(f"{opened.name}: no column holds text, numbers, lists or structs, but {_listed(omitted)}")
        file, number = RowFile(opened.name), 0
        try:
            for batch in plain_batches(opened.rows, omitted):
                yield from arrow_rows(file, number + 1, batch)
                number += batch.num_rows
        except library_errors() as error:
            raise DataError(f"{opened.name} cannot be read behind row {number}: {one_line(error)}") from error

    def _open(self) -> OpenedSplit:
        """The split. A reading after the first is of the same commit, whatever was pushed meanwhile."""
        with quiet():
            if not self.path.startswith(SCHEME):
                return open_saved(find_saved(self.path))
            opened = open_on_hub(parse_hub_address(self.path), self._commit or self.revision)
        self._commit = opened.commit
        return opened


def require_extra() -> None:
    """Raise MissingExtraError if `datasets` is not installed. A folder of that name is no package."""
    try:
        spec = find_spec("datasets")
    except ValueError:  # it was taken out of sys.modules
        spec = None
    if spec is None or spec.origin is None:
        raise MissingExtraError("dataset 'hf' needs datasets: pip install 'distillkit[hf]'")


def _notes(opened: OpenedSplit, omitted: Mapping[str, str], revision: str | None) -> Iterator[str]:
    if opened.commit is not None and revision != opened.commit:
        yield f"read as of commit {opened.commit}; as `revision` in data.source it stays that"
    if omitted:
        yield f"columns that JSON does not hold are left out: {_listed(omitted)}"


def _listed(omitted: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({what})" for name, what in omitted.items())
