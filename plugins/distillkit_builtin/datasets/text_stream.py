"""The bytes of a text file, unpacked while they are read: a file of any size, however well it packs, takes a few MiB.

gzip is the standard library's, zstd that of pyarrow: zstandard's stream reader ends where a file was cut off as if that
were its end (0.25), so that rows would be lost without a word.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from distillkit import DataError
from distillkit_builtin.datasets.data_extra import data_extra
from distillkit_builtin.datasets.file_format import Packing

BUFFER = 2**18
"""Bytes that are read at once."""


@contextmanager
def text_stream(path: Path, packing: Packing | None) -> Iterator[BinaryIO]:
    """A file's bytes, unpacked. Raises DataError, also for what is met while they are read."""
    try:
        with _opened(path, packing) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, packing, error) from error
    except OSError as error:
        if error.errno is None:  # of pyarrow, which says what is wrong with the content in this way
            raise _damaged(path, packing, error) from error
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _opened(path: Path, packing: Packing | None) -> BinaryIO:
    if packing == "gzip":
        return cast(BinaryIO, io.BufferedReader(gzip.open(path), BUFFER))
    if packing == "zstd":
        with data_extra(f"{path}: reading .zst"):
            import pyarrow as pa
        return cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), BUFFER))
    return path.open("rb", buffering=BUFFER)


def _damaged(path: Path, packing: Packing | None, error: Exception) -> DataError:
    return DataError(
        f"{path}: is cut off or damaged: {str(error)[:200]} ({packing}). Fetch or write it again; "
        f"{'gzip' if packing == 'gzip' else 'zstd'} -t says whether it is whole"
    )
