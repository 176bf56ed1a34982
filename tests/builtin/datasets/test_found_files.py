"""Folders, globs and lists: the same files in the same order everywhere, none twice, none left out in silence."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.raw_rows import fields, read
from helpers.rows import rows_of

from distillkit import DataError
from distillkit_builtin.datasets.files import FilesDataset
from distillkit_builtin.datasets.found_files import find_files


def write(path: Path, *names: str) -> Path:
    """A file of JSON lines that hold names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(json.dumps({"n": name}).encode() + b"\n" for name in names or (path.name,))
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def names(*paths: str | Path) -> list[str]:
    return [row["n"] for row in fields([str(path) for path in paths])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "data"
    for name in ("b.jsonl", "a.jsonl", "sub/c.jsonl.gz", "sub/.hidden.jsonl", ".git/d.jsonl", "B/e.ndjson", "b/f.json"):
        write(top / name)
    write(top / "README.md")
    write(top / "sub/run.sh")
    return top


def test_a_folder_is_all_that_is_below_it_in_the_order_of_the_names(folder: Path) -> None:
    assert names(folder) == ["e.ndjson", "a.jsonl", "b.jsonl", "f.json", "c.jsonl.gz"]


def test_what_is_not_read_of_a_folder_is_said(folder: Path) -> None:
    some, skipped = FilesDataset(path=str(folder)).notes()
    assert some == f"5 files, {folder}/B/e.ndjson, {folder}/a.jsonl, {folder}/b.jsonl and 2 more"
    assert skipped == f"not read, since the suffix is not known: {folder}/README.md, {folder}/sub/run.sh"
    assert FilesDataset(path=str(folder / "a.jsonl")).notes() == []
    assert FilesDataset(path=(str(folder / "a.jsonl"), str(folder / "b.jsonl"))).notes() == []


def test_splits_that_are_read_together_are_said(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "retested"):
        write(tmp_path / f"x/{name}.jsonl")
    notes = FilesDataset(path=str(tmp_path / "x")).notes()
    assert "files of several splits are read together, as test and train in their names say" in notes
    assert len(FilesDataset(path=str(tmp_path / "x/train-*")).notes()) == 1


def test_empty_files_are_said(folder: Path) -> None:
    (folder / "sub/empty.jsonl").touch()
    assert f"{folder}/sub/empty.jsonl: is empty" in FilesDataset(path=str(folder)).notes()
    assert len(names(folder)) == 5


def test_rows_of_several_files_are_called_by_the_way_from_the_folder_that_all_share(folder: Path) -> None:
    found = [row.file.key for row in FilesDataset(path=str(folder)).read()]
    assert found == ["B/e.ndjson", "a.jsonl", "b.jsonl", "b/f.json", "sub/c.jsonl.gz"]
    two = FilesDataset(path=(str(folder / "b/f.json"), str(folder / "b/../a.jsonl")))
    assert [row.file.key for row in two.read()] == ["b/f.json", "a.jsonl"]
    assert [row.file.key for row in FilesDataset(path=str(folder / "B")).read()] == [""]


def test_names_do_not_depend_on_where_the_folder_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = [row.file.key for row in FilesDataset(path=str(folder)).read()]
    monkeypatch.chdir(folder)
    assert [row.file.key for row in FilesDataset(path=".").read()] == absolute
    folder.rename(folder.parent / "moved")
    assert [row.file.key for row in FilesDataset(path=str(folder.parent / "moved")).read()] == absolute


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("?/*.*json", ["e.ndjson", "f.json"]),
        ("**/*.json*", ["a.jsonl", "b.jsonl", "f.json", "c.jsonl.gz"]),
        ("s*", ["c.jsonl.gz"]),
        ("*", ["e.ndjson", "a.jsonl", "b.jsonl", "f.json", "c.jsonl.gz"]),
    ],
)
def test_globs(folder: Path, pattern: str, found: list[str]) -> None:
    assert names(f"{folder}/{pattern}") == found


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    write(tmp_path / "a[1].jsonl")
    write(tmp_path / "a1.jsonl")
    assert names(tmp_path / "a[1].jsonl") == ["a[1].jsonl"]


def test_a_list_is_read_in_its_order(folder: Path) -> None:
    assert names(folder / "b.jsonl", folder / "sub", folder / "a.jsonl") == ["b.jsonl", "c.jsonl.gz", "a.jsonl"]


def refusal(*paths: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        read([str(path) for path in paths])
    return str(caught.value)


def test_what_stands_for_no_file(folder: Path) -> None:
    (folder / "none").mkdir()
    assert refusal(folder / "none").startswith(
        f"{folder}/none: holds no file of a suffix that is known; these are: .jsonl"
    )
    assert "matches no file of a suffix that is known but run.sh; these are" in refusal(f"{folder}/sub/*.sh")
    assert refusal(f"{folder}/*.parquet") == f"{folder}/*.parquet: no file matches (looked from {Path.cwd()})"
    assert refusal(folder / "gone.jsonl") == f"{folder}/gone.jsonl: no such file (looked from {Path.cwd()})"
    assert refusal("~/x.jsonl").endswith("; ~ is not replaced, write the whole path")
    for address in ("s3://bucket/a.jsonl", "https://a.b/c.parquet", "gs://x/*.csv"):
        assert refusal(address).startswith(f"{address}: is an address, and files are read on this machine: fetch it")
    assert refusal("hf://org/name").startswith(
        "hf://org/name: is no file; source `hf` reads it: `data.source: {name: hf"
    )


def test_one_file_twice_is_refused(folder: Path) -> None:
    one, link = folder / "a.jsonl", folder / "sub/link.jsonl"
    assert "a.jsonl: it is named twice, and its rows would be read twice" in refusal(one, one)
    assert f"it is the same file as {one}, and its rows" in refusal(one, f"{folder}/../data/a.jsonl")
    assert "a.jsonl: it is named twice" in refusal(one, folder)
    assert "a.jsonl: it is named twice" in refusal(f"{folder}/a*", f"{folder}/*.jsonl")
    link.symlink_to(one)
    assert f"{link}: it is the same file as {one}, and" in refusal(folder)


def test_several_formats_in_one_folder_are_refused_and_in_a_list_read(folder: Path) -> None:
    (folder / "z.csv").write_text("n\nz\n")
    pq.write_table(pa.table({"n": ["p"]}), folder / "p.parquet")
    said = refusal(folder)
    assert said.startswith(f"{folder}: holds files of several formats: JSON ({folder}/B/e.ndjson), Parquet ({folder}/p")
    assert f"`data.path: [{folder}/B/e.ndjson, {folder}/p.parquet, {folder}/z.csv]`" in said
    assert names(folder / "p.parquet", folder / "a.jsonl", folder / "z.csv") == ["p", "a.jsonl", "z"]


def test_links_to_folders_are_followed_and_one_that_leads_back_ends(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/g.jsonl")
    (folder / "z").symlink_to(tmp_path / "elsewhere")
    (folder / "sub/back").symlink_to(folder)
    assert names(folder) == ["e.ndjson", "a.jsonl", "b.jsonl", "f.json", "c.jsonl.gz", "g.jsonl"]


def test_what_cannot_be_read_in_a_folder_is_said(folder: Path) -> None:
    (folder / "gone.jsonl").symlink_to(folder / "nowhere")
    assert f"{folder}/gone.jsonl: no such file" in refusal(folder)
    (folder / "gone.jsonl").unlink()
    os.mkfifo(folder / "pipe.jsonl")
    assert f"{folder}/pipe.jsonl: cannot be read: it is no regular file" in refusal(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_not_left_out(folder: Path) -> None:
    (folder / "sub").chmod(0)
    try:
        assert f"{folder}/sub: cannot be read: Permission denied" in refusal(folder)
    finally:
        (folder / "sub").chmod(0o700)


def test_more_files_than_may_be_open_at_once(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    row = json.dumps({"messages": [{"role": "user", "content": "hi"}]})
    for number in range(300):
        (tmp_path / f"{number:03}.jsonl").write_text(row)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 100, hard))
    try:
        rows = rows_of(tmp_path)
        rows.validate(lambda row: None)
        assert [row.place for row in (rows.row(0), rows.row(299))] == [
            f"{tmp_path}/{n}.jsonl:1" for n in ("000", "299")
        ]
        assert sum(1 for _ in rows.rows()) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("path", ["", [], ["a.jsonl", ""]])
def test_no_path_at_all(path: str | list[str]) -> None:
    with pytest.raises(ValueError, match="is empty; give a file, a folder or a glob"):
        FilesDataset(path=path)


def test_finding_reads_no_content(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no Parquet")
    assert [file.path.name for file in find_files([str(tmp_path)]).files] == ["a.parquet"]
