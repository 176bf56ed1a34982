"""The records of a run's file of wandb, whose own reader is no part of the package since 0.31.

After seven bytes that say what file it is, blocks of 32 KiB in LevelDB's log format: a record stands in one part or in
several, each with a checksum, its length and which part it is.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

HEADER, BLOCK = 7, 32768
IDENT = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
WHOLE, LAST = 1, 4


def records_in(path: Path) -> Iterator[bytes]:
    """Each record's bytes, in the order in which they were written."""
    data, at, parts = path.read_bytes(), HEADER, b""
    assert data[:HEADER] == IDENT
    while at < len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # too little for a part: the rest of a block is empty
            assert not any(data[at : at + left])
            at += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + HEADER : at + HEADER + length]
        assert zlib.crc32(bytes([kind]) + part) == checksum
        at, parts = at + HEADER + length, parts + part
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""
    assert not parts
