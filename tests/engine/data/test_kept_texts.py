"""Texts in a temporary file: read from any place, and a disk that is full."""

import gc
import tempfile
from pathlib import Path

import pytest

from distillkit.data.kept_texts import KeptTexts
from distillkit.errors import DataError


def test_readers_go_their_own_ways_while_more_is_kept() -> None:
    texts = KeptTexts()
    starts = [texts.append(line) for line in (b"first", b"second", b"third")]
    one, other = texts.open(), texts.open()
    one.seek(starts[2])
    assert other.readline() == b"first\n"
    assert one.readline() == b"third\n"
    assert other.readline() == b"second\n"
    start = texts.append(b"fourth")
    again = texts.open()
    again.seek(start)
    assert again.read() == b"fourth\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
@pytest.mark.filterwarnings("error")  # nothing is printed besides when the file is closed
@pytest.mark.parametrize("size", [1, 100_000])
def test_a_full_disk_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering, prefix: Path("/dev/full").open("wb", buffering))  # noqa: SIM115
    texts = KeptTexts()
    with pytest.raises(DataError, match=r"the rows cannot be kept in .*: No space left on device.*set TMPDIR"):  # noqa: PT012
        texts.append(b"x" * size)
        texts.open()  # which writes out what little was kept
    del texts
    gc.collect()
