"""What Arrow's columns hold, as the values of rows: each becomes JSON, or is left out and that is said."""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builtin.datasets.saved_folders import rows_of
from distillkit import DataError
from distillkit.raw_row import UnreadableRow
from distillkit_builtin.datasets.hf import HuggingFaceDataset

datasets = pytest.importorskip("datasets")


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
