"""Files that are there whole after a power failure too: written aside, flushed, renamed, and the name flushed.

And digests that tell whether they still are what was written, made on all cores: those of a file's pieces, since a hash
over the whole would take one core alone. It is BLAKE2b's own tree mode (section 2.10 of
https://www.blake2.net/blake2.pdf), two levels deep: pieces are leaves, and the file's digest is that of its leaves'
digests. A changed byte, pieces in another order and a file that was cut are found as by a hash over the whole.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue

PIECE = 32 * 2**20
"""Bytes of a leaf."""
BLOCK = 2**20
"""Bytes that a thread reads at once."""
MOST_THREADS = 16
"""More read no faster than memory is."""
DIGEST = 64
"""Bytes of a digest."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what is to take the place of the file `path`, whole or not at all, when the block ends well.

    What stands there is flushed to the disk before it is renamed, and the folder's names after. Raises OSError.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        yield aside
        flush(aside)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    aside.replace(path)
    flush(path.parent)


def write_json(path: Path, value: JsonValue | Mapping[str, JsonValue], indent: int | None = 1) -> None:
    """Replace `path`, whole or not at all, by JSON. Raises OSError, and ValueError for a number that is not finite."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(value, indent=indent, allow_nan=False) + "\n", encoding="utf-8")


def flush(path: Path) -> None:
    """A file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksums(folder: Path, leave_out: str) -> dict[str, str]:
    """The digest of every file below `folder`, by its path there, but those named `leave_out`. Raises OSError."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != leave_out)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        leaves = {path: [pool.submit(_leaf, path, index) for index in range(_pieces(path))] for path in files}
        return {
            path.relative_to(folder).as_posix(): _root(leaf.result() for leaf in mine) for path, mine in leaves.items()
        }


def _pieces(path: Path) -> int:
    """How many there are; an empty file is one empty piece."""
    return max(1, -(-path.stat().st_size // PIECE))


def _leaf(path: Path, index: int) -> bytes:
    """The digest of one piece; hashlib lets other threads run meanwhile."""
    leaf = hashlib.blake2b(fanout=0, depth=2, leaf_size=PIECE, node_offset=index, node_depth=0, inner_size=DIGEST)
    left = PIECE
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        buffer = memoryview(bytearray(min(BLOCK, size)))  # most files are small, and an allocator keeps what it gave
        file.seek(index * PIECE)
        while left and (count := file.readinto(buffer[:left])):
            leaf.update(buffer[:count])
            left -= count
    return leaf.digest()


def _root(leaves: Iterable[bytes]) -> str:
    """The digest of a file from those of its pieces, in order."""
    root = hashlib.blake2b(
        fanout=0, depth=2, leaf_size=PIECE, node_offset=0, node_depth=1, inner_size=DIGEST, last_node=True
    )
    for leaf in leaves:
        root.update(leaf)
    return root.hexdigest()
