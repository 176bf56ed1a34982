"""What a file is, where its name and its content have to agree: nothing is guessed, and what to do is said."""

from pathlib import Path

from distillkit import DataError
from distillkit_builtin.datasets.file_format import KNOWN, Content, Packing
from distillkit_builtin.datasets.file_kind import HEAD, PACKED, PARQUET, Kind, begins_as_json, foreign_kind
from distillkit_builtin.datasets.found_files import FoundFile
from distillkit_builtin.datasets.text_stream import text_stream


def settled_content(file: FoundFile) -> tuple[Content, bytes]:
    """What a file holds, and how its text begins. Raises DataError where the content is of another kind."""
    path, packing, content = file.path, file.format.packing, file.format.content
    head = _head(path, None)
    if content == "Parquet":
        _require_parquet(path, packing, head)
        return content, head
    if packing is not None and head:
        _require(path, PACKED[packing], foreign_kind(head), f"ends with {path.suffix}")
        head = _head(path, packing)
    if (kind := foreign_kind(head)) is not None:
        raise DataError(f"{path}: {'is packed, and what it holds ' if packing else ''}{kind.what}: {kind.fix}")
    if content in ("CSV", "TSV") and begins_as_json(head):
        raise DataError(f"{path}: begins as JSON, not as {content}: give it a name that ends with .jsonl or .json")
    if content is None and head and not begins_as_json(head):
        raise DataError(
            f"{path}: its name does not say what it holds, and it does not begin as JSON; the suffixes that are known: "
            f"{KNOWN}"
        )
    return content or "JSON", head


def _head(path: Path, packing: Packing | None) -> bytes:
    with text_stream(path, packing) as stream:
        return stream.read(HEAD)


def _require_parquet(path: Path, packing: Packing | None, head: bytes) -> None:
    if packing is not None:
        raise DataError(f"{path}: Parquet is compressed in itself, and is not read through {packing}: unpack it")
    if not head.startswith(b"PAR1"):
        _require(path, PARQUET, foreign_kind(head), "ends with .parquet")


def _require(path: Path, wanted: Kind, found: Kind | None, name: str) -> None:
    if found is None:
        raise DataError(f"{path}: {wanted.what.replace('is ', 'is not ', 1)}, though its name {name}: rename it")
    if found is not wanted:
        raise DataError(f"{path}: {found.what}, though its name {name}: {found.fix}")
