"""Compressed texts: the same rows as the text itself, and what is cut off or damaged is never taken for whole."""

import gzip
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.raw_rows import fields, read

from distillkit import DataError, MissingExtraError

ROWS = [{"n": n, "text": f"row {n} {'x' * n}"} for n in range(300)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


PACKINGS = {".gz": gzip.compress, ".zst": zstd}


@pytest.fixture(params=PACKINGS)
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    def write(data: bytes, name: str = "rows.jsonl") -> Path:
        path = tmp_path / f"{name}{request.param}"
        path.write_bytes(data)
        return path

    write.pack = PACKINGS[request.param]  # type: ignore[attr-defined]
    return write


TEXTS = {
    "rows.jsonl": LINES,
    "rows.json": json.dumps(ROWS, indent=1).encode(),
    "rows.csv": b"n,text\n" + b"".join(f"{row['n']},{row['text']}\n".encode() for row in ROWS),
    "rows.tsv": b"n\ttext\n" + b"".join(f"{row['n']}\t{row['text']}\n".encode() for row in ROWS),
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_may_be_compressed(packed: Callable[..., Path], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(TEXTS[name])
    plain = read(tmp_path / name)
    assert len(plain) == len(ROWS)
    assert read(packed(packed.pack(TEXTS[name]), name)) == plain  # type: ignore[attr-defined]


def test_parts_that_were_compressed_one_by_one_are_all_read(packed: Callable[..., Path]) -> None:
    half = len(LINES) // 2
    data = packed.pack(LINES[:half]) + packed.pack(LINES[half:])  # type: ignore[attr-defined]
    assert fields(packed(data)) == ROWS


@pytest.mark.parametrize("keep", [-1, -4, -9, -20, 0.5, 12])
def test_a_file_that_is_cut_off_is_refused(packed: Callable[..., Path], keep: float) -> None:
    data = packed.pack(LINES)  # type: ignore[attr-defined]
    path = packed(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: is cut off or damaged: ")
    assert "Fetch or write it again" in str(caught.value)


def test_a_second_part_that_is_cut_off_is_refused(packed: Callable[..., Path]) -> None:
    data = packed.pack(LINES)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="is cut off or damaged"):
        read(packed(data + data[:-3]))


def test_a_file_that_is_damaged_is_refused(packed: Callable[..., Path]) -> None:
    data = bytearray(packed.pack(LINES))  # type: ignore[attr-defined]
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match="is cut off or damaged"):
        read(packed(bytes(data)))


def test_what_stands_behind_the_end_is_refused(packed: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="is cut off or damaged"):
        read(packed(packed.pack(LINES) + b"more"))  # type: ignore[attr-defined]


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(LINES, mtime=0))
    data[-8:-4] = (zlib.crc32(LINES) ^ 1).to_bytes(4, "little")
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match="is cut off or damaged: CRC check failed"):
        read(path)


@pytest.mark.parametrize("name", ["rows.jsonl.zst", "rows.parquet"])
def test_without_the_extra_the_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(zstd(LINES) if name.endswith(".zst") else b"PAR1\x15")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError) as caught:
        read(path)
    what = ".zst" if name.endswith(".zst") else "Parquet"
    assert str(caught.value) == f"{path}: reading {what} needs pyarrow: pip install 'distillkit[data]'"


def test_gzip_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(LINES, mtime=0))
    assert fields(path) == ROWS
