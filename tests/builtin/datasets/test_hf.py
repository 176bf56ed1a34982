"""Folders that `save_to_disk` wrote; `datasets` itself writes them here."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builtin.datasets.saved_folders import rows_of
from distillkit import DataError, MissingExtraError
from distillkit.testing import check_plugin
from distillkit_builtin.datasets.hf import HuggingFaceDataset

datasets = pytest.importorskip("datasets")


def test_a_folder_holds_its_rows_in_order(saved: Callable[..., str]) -> None:
    rows = [{"q": f"number {i}", "n": i} for i in range(700)]  # more than a batch
    source = HuggingFaceDataset(path=saved(rows))
    found = list(source.read())
    assert [json.loads(row.text) for row in found] == rows
    assert [row.number for row in found] == list(range(1, 701))
    assert found[699].place == f"{source.path} row 700"
    assert found[0].file.key == ""
    assert not source.notes()
    check_plugin(source)


def test_it_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"q": ["x" * 2000] * 15_000})  # 30 MB
    datasets.Dataset(table).save_to_disk(str(tmp_path / "large"))
    del table
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() for _ in HuggingFaceDataset(path=str(tmp_path / "large")).read())
    assert most - before < 8_000_000


def test_of_several_splits_one_is_named(saved: Callable[..., str]) -> None:
    folder = saved(train=[{"q": "a"}], test=[{"q": "b"}, {"q": "c"}])
    assert rows_of(f"{folder}#test") == [{"q": "b"}, {"q": "c"}]
    (row,) = HuggingFaceDataset(path=f"{folder}#train").read()
    assert row.file.place(row.number) == f"{folder}#train row 1"
    assert rows_of(f"{folder}/test") == [{"q": "b"}, {"q": "c"}]  # a split's folder is one of a dataset
    with pytest.raises(DataError, match=r"has the splits train, test; say which: \S+saved#train"):
        rows_of(folder)
    with pytest.raises(DataError, match="has no split 'dev'; it has train, test"):
        rows_of(f"{folder}#dev")
    with pytest.raises(
        DataError, match=r"'train\[:1\]' is no name of a split; one whole split is read, and data.max_rows"
    ):
        rows_of(f"{folder}#train[:1]")


def test_the_only_split_needs_no_name(saved: Callable[..., str]) -> None:
    folder = saved(only=[{"q": "a"}])
    assert rows_of(folder) == rows_of(f"{folder}#only") == [{"q": "a"}]


def test_a_folder_without_splits_has_none(saved: Callable[..., str]) -> None:
    folder = saved([{"q": "a"}])
    with pytest.raises(DataError, match="holds one dataset, not a folder a split; leave out #train"):
        rows_of(f"{folder}#train")


def test_a_number_sign_may_belong_to_the_folders_name(saved: Callable[..., str]) -> None:
    folder = saved([{"q": "a"}], name="c#sharp")
    assert rows_of(folder) == [{"q": "a"}]


def test_rows_that_were_chosen_or_shuffled_are_read_in_their_order(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list([{"n": i} for i in range(1000)])
    whole.select([7, 3, 999, 3]).save_to_disk(str(tmp_path / "chosen"))
    assert rows_of(str(tmp_path / "chosen")) == [{"n": 7}, {"n": 3}, {"n": 999}, {"n": 3}]


def test_a_format_that_was_saved_hides_nothing(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_list([{"n": 1, "q": "a"}]).with_format("numpy", columns=["n"])
    whole.save_to_disk(str(tmp_path / "formatted"))
    assert rows_of(str(tmp_path / "formatted")) == [{"n": 1, "q": "a"}]


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("state.json", b"{"),
        ("state.json", b"[]"),
        ("state.json", b"{}"),
        ("dataset_info.json", b'{"features": {"q": {"_type": "Unheard"}}}'),
        ("dataset_info.json", b'{"features": {"q": 7}}'),
        ("data-00000-of-00001.arrow", b""),
        ("data-00000-of-00001.arrow", b"\xff" * 500),
        ("data-00000-of-00001.arrow", None),
    ],
)
def test_a_damaged_folder_is_said_in_one_line(saved: Callable[..., str], file: str, damage: bytes | None) -> None:
    folder = saved([{"q": "a"}])
    path = Path(folder, file)
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(DataError) as caught:
        rows_of(folder)
    assert folder in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrow_that_would_lead_outside_of_its_buffers_is_found(saved: Callable[..., str]) -> None:
    folder = saved([{"q": "abc"}, {"q": "def"}])
    path = Path(folder, "data-00000-of-00001.arrow")
    offsets = (0).to_bytes(4, "little") + (3).to_bytes(4, "little") + (6).to_bytes(4, "little")
    content = path.read_bytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, offsets[:8] + (2**30).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"cannot be read behind row \d: .*out of bounds"):
        rows_of(folder)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent", r"'absent': no such folder \(looked from .*\); a dataset on the hub is hf://org/name"),
        (".", "no folder that `save_to_disk` wrote, which has dataset_info.json and state.json, or dataset_dict.json"),
        (".#train", "no folder that `save_to_disk` wrote"),
        ("\0", "no such folder"),
        ("x" * 5000, "cannot be read: File name too long"),
    ],
)
def test_what_is_no_such_folder(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        rows_of(path)
    assert len(str(caught.value)) < 600


def test_without_the_library_the_pip_command_is_named(
    saved: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved([{"q": "a"}])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"dataset 'hf' needs datasets: pip install 'distillkit\[hf\]'"):
        next(HuggingFaceDataset(path=folder).read())


def test_it_is_imported_only_where_it_reads() -> None:
    code = (
        "import sys\nfrom distillkit import Registry\nfrom distillkit_builtin.datasets.hf import HuggingFaceDataset\n"
        "Registry.discover()\nHuggingFaceDataset(path='hf://org/name').place()\n"
        "assert not {'datasets', 'pyarrow', 'pandas', 'huggingface_hub'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
