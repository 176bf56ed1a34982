"""What a file holds, by how it is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

Content = Literal["JSON", "CSV", "TSV", "Parquet"]
"""JSON: lines of it, an array, or objects over several lines; which of them is seen at how the file begins."""
Packing = Literal["gzip", "zstd"]
Meaning = TypeVar("Meaning")

CONTENTS: Mapping[str, Content] = {
    ".jsonl": "JSON",
    ".ndjson": "JSON",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
}
PACKINGS: Mapping[str, Packing] = {".gz": "gzip", ".zst": "zstd"}
KNOWN = f"{', '.join(CONTENTS)}, and {' or '.join(PACKINGS)} behind those of texts (rows.jsonl.gz)"
"""The suffixes that are known, for messages."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What the name of a file says of what it holds."""

    content: Content | None = None
    """None: nothing."""
    packing: Packing | None = None


def format_of(name: str) -> FileFormat:
    """What a file of this name holds, in large or small letters."""
    name, packing = _cut(name.lower(), PACKINGS)
    return FileFormat(_cut(name, CONTENTS)[1], packing)


def _cut(name: str, suffixes: Mapping[str, Meaning]) -> tuple[str, Meaning | None]:
    found = next((suffix for suffix in suffixes if name.endswith(suffix)), None)
    return (name, None) if found is None else (name.removesuffix(found), suffixes[found])
