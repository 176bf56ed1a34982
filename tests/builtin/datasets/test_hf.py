"""Folders that `save_to_disk` wrote; `datasets` itself writes them here."""

import datetime as dt
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from conftest import question, read_jsonl
from pydantic import PrivateAttr
from typer.testing import CliRunner

from distillkit import Batch, DataError, InputError, MissingExtraError, RunConfig, StepResult, run
from distillkit.cli.main import app
from distillkit.raw_row import RawRow, UnreadableRow
from distillkit.testing import FakeStudent, check_plugin
from distillkit_builtin.datasets.hf import HuggingFaceDataset

datasets = pytest.importorskip("datasets")
Rows = list[dict[str, Any]]
HELPERS = Path(__file__).parent.parent.parent / "helpers"


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Write rows (or a split of each name) as `datasets` does; returns the folder."""

    def write(rows: Any = None, features: Any = None, name: str = "saved", **splits: Rows) -> str:
        folder = str(tmp_path / name)
        found = {split: datasets.Dataset.from_list(of, features=features) for split, of in splits.items()}
        whole = datasets.DatasetDict(found) if splits else datasets.Dataset.from_list(rows, features=features)
        whole.save_to_disk(folder)
        return folder

    return write


def rows_of(path: str) -> list[Any]:
    rows = list(HuggingFaceDataset(path=path).read())
    assert all(isinstance(row, RawRow) for row in rows)
    return [json.loads(row.text) for row in rows]


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


def test_what_arrow_holds_becomes_json(saved: Callable[..., str]) -> None:
    from datasets import Array2D, ClassLabel, Features, Json, LargeList, List, Value

    label = ClassLabel(names=["neg", "pos"])
    features = Features(
        {
            "label": label,
            "labels": List(label),
            "pair": List(label, length=2),
            "large": LargeList({"of": label, "text": Value("string")}),
            "nested": {"label": label, "day": Value("date32")},
            "messages": List({"role": Value("string"), "content": Value("string")}),
            "columns": datasets.Sequence({"x": Value("int32"), "y": Value("string")}),
            "time": Value("timestamp[us, tz=UTC]"),
            "number": Value("float32"),
            "matrix": Array2D((None, 2), "int8"),
            "matrices": List(Array2D((1, 1), "int8")),
            "json": Json(),
            "tools": List(Json()),
        }
    )
    full = {
        "label": 1,
        "labels": [0, 1, -1],
        "pair": [1, 0],
        "large": [{"of": 0, "text": "é"}],
        "nested": {"label": 1, "day": dt.date(2026, 1, 2)},
        "messages": [{"role": "user", "content": "hi"}],
        "columns": {"x": [1, 2], "y": ["a", None]},
        "time": dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
        "number": float("nan"),
        "matrix": [[1, 2], [3, 4]],
        "matrices": [[[7]]],
        "json": {"any": [1, {"x": None}]},
        "tools": [{"a": 1}, {"b": "x"}],
    }
    empty: Mapping[str, Any] = {**dict.fromkeys(full), "label": -1, "labels": [], "columns": {"x": [], "y": []}}
    first, second, third = rows_of(saved([full, empty, full], features))
    assert (
        first
        == third
        == {
            "label": "pos",
            "labels": ["neg", "pos", None],
            "pair": ["pos", "neg"],
            "large": [{"of": "neg", "text": "é"}],
            "nested": {"label": "pos", "day": "2026-01-02"},
            "messages": [{"role": "user", "content": "hi"}],
            "columns": {"x": [1, 2], "y": ["a", None]},
            "time": "2026-01-02T03:04:05+00:00",
            "number": None,
            "matrix": [[1, 2], [3, 4]],
            "matrices": [[[7]]],
            "json": {"any": [1, {"x": None}]},
            "tools": [{"a": 1}, {"b": "x"}],
        }
    )
    assert second == {**dict.fromkeys(full), "labels": [], "columns": {"x": [], "y": []}}


def test_lists_of_labels_are_those_of_their_rows_in_every_batch(saved: Callable[..., str]) -> None:
    from datasets import ClassLabel, Features, List

    names = ["a", "b", "c"]
    features = Features({"labels": List(ClassLabel(names=names))})
    labels = [None if i % 5 == 0 else [(i + j) % 3 for j in range(i % 4)] for i in range(600)]
    found = rows_of(saved([{"labels": row} for row in labels], features))
    assert found == [{"labels": None if row is None else [names[label] for label in row]} for row in labels]


def test_what_is_no_text_is_left_out_and_said_and_never_decoded(tmp_path: Path) -> None:
    import pyarrow as pa
    from datasets import Audio, Features, Image, List, Value

    features = Features(
        {
            "q": Value("string"),
            "picture": Image(),
            "sound": Audio(),
            "raw": Value("binary"),
            "parts": List({"text": Value("string"), "image": Image()}),
        }
    )
    broken = {"bytes": b"no picture", "path": None}
    row = {
        "q": "what is this?",
        "picture": broken,
        "sound": None,
        "raw": b"\0",
        "parts": [{"text": "x", "image": broken}],
    }
    table = pa.Table.from_pylist([row], schema=features.arrow_schema)  # `datasets` itself would ask for Pillow
    folder = str(tmp_path / "pictures")
    datasets.Dataset(table, info=datasets.DatasetInfo(features=features)).save_to_disk(folder)
    source = HuggingFaceDataset(path=folder)
    assert [json.loads(found.text) for found in source.read()] == [{"q": "what is this?"}]
    (note,) = source.notes()
    assert note.endswith("are left out: picture (Image), sound (Audio), raw (binary), parts (Image)")


def test_without_a_column_of_text_there_are_no_rows(saved: Callable[..., str]) -> None:
    folder = saved([{"raw": b"\x00"}])
    with pytest.raises(DataError, match=r"no column holds text, numbers, lists or structs, but raw \(binary\)"):
        rows_of(folder)


def test_a_value_that_is_no_json_is_one_rows_problem(tmp_path: Path) -> None:
    import pyarrow as pa

    texts = pa.array(['{"a": [1]}', '{"a": NaN}', None]).cast(pa.json_())
    datasets.Dataset(pa.table({"x": texts})).save_to_disk(str(tmp_path / "json"))
    first, second, third = HuggingFaceDataset(path=str(tmp_path / "json")).read()
    assert (json.loads(first.text), json.loads(third.text)) == ({"x": {"a": [1]}}, {"x": None})
    assert isinstance(second, UnreadableRow)
    assert (second.number, str(second.problem)) == (
        2,
        "x: cannot be read: holds NaN, which JSON does not have; write null, or a text",
    )


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


def test_a_config_names_the_folder_alone_and_the_splits_behind_it(
    saved: Callable[..., str], fake_config: Callable[..., RunConfig]
) -> None:
    folder = saved(train=[question(f"number {i}") for i in range(4)], test=[question("held out")])
    result = run(
        fake_config(data={"path": f"{folder}#train", "eval_path": f"{folder}#test"}, evaluators=["reverse_kl"])
    )
    assert result.summary["trained_rows"] == 4
    assert "after" in result.eval


def test_check_says_what_is_left_out_and_nothing_else_of_the_library(
    saved: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = saved(train=[question(f"number {i}", raw=b"\0") for i in range(4)])
    capfd.readouterr()
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data: {{path: '{folder}#train'}}\nstudent: {{name: fake}}\nteachers: [{{model: made-up}}]\n"
        f"plugins: [{HELPERS / 'fake_plugins.py'}]\nlog_path: {tmp_path}/runs\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(app, ["check", str(config)])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "columns that JSON does not hold are left out: raw (binary)" in said
    assert f"{Path(folder).name}#train row 1" in said
    assert not capfd.readouterr().err


class Mortal(FakeStudent):
    """Dies before a step, if it is told to."""

    name: ClassVar[str] = "mortal"
    _steps_left: float = PrivateAttr(float("inf"))

    @classmethod
    def after(cls, steps: float) -> "Mortal":
        student = cls(learning_rate=5.0)
        student._steps_left = steps
        return student

    async def train(self, batch: Batch) -> StepResult:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise ZeroDivisionError("the power went")
        return await super().train(batch)


@pytest.mark.parametrize("steps", [1, 4, 9])  # in the first epoch, at its end, in the second
def test_a_run_that_died_goes_on_as_if_it_had_not(
    saved: Callable[..., str], fake_config: Callable[..., RunConfig], steps: int
) -> None:
    folder = saved(train=[question(f"row {i}") for i in range(10)], test=[question("held out")])

    def config(name: str, student: Mortal) -> RunConfig:
        data = {"path": f"{folder}#train", "eval_path": f"{folder}#test", "epochs": 2}
        train = {"save_every": 1, "eval_every": 3}
        return fake_config(name=name, data=data, student=student, train=train, evaluators=["reverse_kl"])

    whole = run(config("whole", Mortal.after(float("inf"))))
    with pytest.raises(ZeroDivisionError):
        run(config("parts", Mortal.after(steps)))
    parts = run(config("parts", Mortal.after(float("inf"))), resume=True)
    for file in ("ledger.jsonl", "samples.jsonl", "adapter/fake.safetensors"):
        assert (parts.run_dir / file).read_bytes() == (whole.run_dir / file).read_bytes(), file
    assert parts.eval["after"] == whole.eval["after"]
    assert len({(row["row_id"], row["epoch"]) for row in read_jsonl(parts.run_dir / "ledger.jsonl")}) == 20


def test_a_run_whose_rows_changed_is_refused(saved: Callable[..., str], fake_config: Callable[..., RunConfig]) -> None:
    folder = saved([question(f"row {i}") for i in range(4)])
    with pytest.raises(ZeroDivisionError):
        run(fake_config(data={"path": folder}, student=Mortal.after(1), train={"save_every": 1}))
    shutil.rmtree(folder)
    saved([question(f"row {i}") for i in (0, 1, 2, 4)])
    with pytest.raises(InputError, match="the rows changed"):
        run(fake_config(data={"path": folder}, student=Mortal.after(9), train={"save_every": 1}), resume=True)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_and_logs_of_others_are_left_as_they_were(saved: Callable[..., str], shown: bool) -> None:
    import logging

    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled as are_the_hubs_disabled

    folder = saved([{"q": "a"}])
    level = logging.getLogger("datasets").level
    before = are_progress_bars_disabled(), are_the_hubs_disabled()
    (enable_progress_bars if shown else disable_progress_bars)()
    try:
        rows = HuggingFaceDataset(path=folder).read()
        next(rows)  # also while they are read
        assert (are_progress_bars_disabled(), are_the_hubs_disabled()) == (not shown, before[1])
        assert logging.getLogger("datasets").level == level
    finally:
        (disable_progress_bars if before[0] else enable_progress_bars)()


@pytest.mark.parametrize(
    ("splits", "line"),
    [
        ({"test": 3, "validation": 40}, "validation"),
        ({"test": 3}, "test"),
        ({"extra": 3}, None),
    ],
)
def test_init_measures_on_the_split_that_is_there_for_it(
    saved: Callable[..., str], tmp_path: Path, splits: dict[str, int], line: str | None
) -> None:
    rows = [{"question": f"Why {i}?", "answer": "So."} for i in range(40)]
    folder = saved(train=rows, **{name: rows[:count] for name, count in splits.items()})
    done = CliRunner().invoke(app, ["init", str(tmp_path / "new"), "--from", f"{folder}#train"])
    assert done.exit_code == 0, done.output
    data = yaml.safe_load((tmp_path / "new/config.yaml").read_text(encoding="utf-8"))["data"]
    assert data.get("eval_path") == (line and f"{folder}#{line}")
    assert data.get("max_eval_rows") == (32 if line == "validation" else None)
    assert ("held_out_rows" in data) == (line is None)


def test_init_leaves_a_split_alone_that_lacks_a_column(saved: Callable[..., str], tmp_path: Path) -> None:
    folder = saved(train=[{"question": "Why?", "answer": "So."}] * 5, test=[{"question": "Why?"}])
    done = CliRunner().invoke(app, ["init", str(tmp_path / "new"), "--from", f"{folder}#train"])
    assert done.exit_code == 0, done.output
    assert "held_out_rows: 1" in (tmp_path / "new/config.yaml").read_text(encoding="utf-8")
