"""JSON lines: found by their ends, numbered by their lines, and placed where the engine can read them again."""

import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillkit import MAX_ROW_BYTES, DataError, RawRow, RowFile
from distillkit.data.row_index import RowIndex
from distillkit_builtin.datasets.files import FilesDataset
from distillkit_builtin.datasets.json_lines import read_json_lines


def rows(path: Path) -> list[RawRow]:
    found = list(FilesDataset(path=str(path)).read())
    assert all(isinstance(row, RawRow) for row in found)
    return found  # type: ignore[return-value]


@given(
    st.lists(st.sampled_from([b"{}", b'{"a": "\xc3\xa9"}', b"", b"  ", b"oops", b"\t"])), st.booleans(), st.booleans()
)
def test_what_stands_at_an_offset_is_the_row(lines: list[bytes], marked: bool, last_ends: bool) -> None:
    for end in (b"\n", b"\r\n"):
        data = (b"\xef\xbb\xbf" if marked else b"") + end.join(lines) + (end if last_ends else b"")
        found = list(read_json_lines(RowFile("x", unit="line", path=Path("x")), io.BytesIO(data)))
        assert [row.number for row in found] == [number for number, line in enumerate(lines, 1) if line.strip()]
        for row in found:
            assert isinstance(row, RawRow)
            assert row.offset is not None
            assert io.BytesIO(data[row.offset :]).readline().rstrip(b"\r\n") == row.text == lines[row.number - 1]


def test_rows_of_a_compressed_file_have_no_offset(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    data = b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(3))
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data, mtime=0))
    assert [row.offset for row in rows(plain)] == [0, 9, 18]
    assert [row.offset for row in rows(packed)] == [None] * 3
    assert [row[1:3] for row in rows(plain)] == [row[1:3] for row in rows(packed)]
    assert [row.file.path for row in (rows(plain)[0], rows(packed)[0])] == [plain, None]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_line_at_the_limit_is_a_row_and_one_beyond_it_is_not(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * MAX_ROW_BYTES + end + b"{}"[: 2 * len(end)])
    assert [len(row.text) for row in rows(path)] == [MAX_ROW_BYTES, 2][: 1 + bool(end)]
    for beyond in (b"x", b"xx", b"xxx", b"\r\rx", b"x" * MAX_ROW_BYTES):
        path.write_bytes(b"x" * MAX_ROW_BYTES + beyond + end + b"{}\n")
        index = RowIndex(FilesDataset(path=str(path)))
        with pytest.raises(DataError) as caught:
            index.unreadable.raise_if_any(2)
        assert str(caught.value) == f"{path}:1: line: is longer than 16 MiB; each row is a line of its own"
        assert len(index) == bool(end)
