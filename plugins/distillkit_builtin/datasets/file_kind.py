"""What a file is that holds no JSON lines, by how it begins: said once, instead of once a line."""

HEAD = 4096
"""Bytes of a file that are looked at."""
KINDS = (
    (b"\x1f\x8b", "is compressed by gzip: unpack it by gunzip -k"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it by zstd -d"),
    (b"BZh", "is compressed by bzip2: unpack it by bunzip2 -k"),
    (b"\xfd7zXZ\x00", "is compressed by xz: unpack it by unxz -k"),
    (b"PK\x03\x04", "is a zip archive, as spreadsheets are: unpack it, or export it as JSON lines"),
    (b"PAR1", "is a Parquet file: write it as JSON lines, by pandas or datasets (`Dataset.to_json`)"),
    (b"ARROW1", "is an Arrow file: write it as JSON lines, by pandas or datasets (`Dataset.to_json`)"),
    (b"\xff\xff\xff\xff", "is an Arrow stream: write it as JSON lines, by datasets (`Dataset.to_json`)"),
    (b"SQLite format 3", "is a SQLite database: export the table as JSON lines"),
    (b"\xff\xfe", "is UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16: save it as UTF-8"),
    (b"version https://git-lfs", "is a git-lfs pointer, not the file that it stands for: git lfs pull"),
    (b"<", "is HTML or XML: fetch the file itself, not a page that shows it"),
    (b"---", "is YAML: write it as JSON lines"),
)
"""How files begin, what they are and what to do."""


def other_kind(head: bytes) -> str | None:
    """What a file is, and what to do, if its first bytes show that it holds no JSON lines; else None."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    found = next((what for magic, what in KINDS if head.startswith(magic) or text.startswith(magic)), None)
    return found or _json_of_many_lines(text)


def _json_of_many_lines(text: bytes) -> str | None:
    """A JSON array, on however many lines, or an object that is indented."""
    if text.startswith(b"["):
        return "is a JSON array: write it as JSON lines, by jq -c '.[]'"
    if text.startswith(b"{") and text.partition(b"\n")[0].strip() == b"{":
        return "is JSON that is indented over several lines: write each object on one line, by jq -c ."
    return None
