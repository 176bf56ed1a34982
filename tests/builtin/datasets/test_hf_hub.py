"""`hf://` against a hub on this machine, in processes of their own: HF_ENDPOINT is read when `datasets` is imported."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.hub_server import Hub, serving

from distillkit.testing import check_plugin
from distillkit_builtin.datasets.hf import HuggingFaceDataset
from distillkit_builtin.datasets.hf_address import HubAddress
from distillkit_builtin.datasets.hf_split import OpenedSplit

pytest.importorskip("datasets")
READ = """
import json, sys
from distillkit.errors import DataError
from distillkit_builtin.datasets.hf import HuggingFaceDataset
for path, revision in json.loads(sys.argv[1]):
    source = HuggingFaceDataset(path=path, revision=revision)
    try:
        found = {"rows": [[row.place, json.loads(row.text)] for row in source.read()], "notes": source.notes()}
    except DataError as error:
        found = {"error": str(error)}
    print(json.dumps(found))
"""
CARD = b"""---
configs:
- {config_name: main, data_files: [{split: train, path: main/train.jsonl}, {split: test, path: main/test.jsonl}]}
- {config_name: other, data_files: other/*.jsonl}
---
"""
OLD = {
    "README.md": CARD,
    "main/train.jsonl": b'{"q": "a"}\n{"q": "b"}\n',
    "main/test.jsonl": b'{"q": "old"}\n',
    "other/x.jsonl": b'{"q": "o"}\n',
}
NEW = {**OLD, "main/test.jsonl": b'{"q": "new"}\n'}
Wanted = tuple[str, str | None]
Found = Mapping[str, Any]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """One that has a dataset of two commits, and some that cannot be read."""
    made = Hub()
    made.push("org/data", OLD)
    made.push("org/data", NEW)
    made.push("org/one", {"train.jsonl": b'{"q": "only"}\n'})
    made.push("org/scripted", {"README.md": b"", "scripted.py": b"raise SystemExit", "train.jsonl": b"{}\n"})
    made.push("org/empty", {"README.md": b"", "notes.md": b"nothing"})
    made.push("org/nothing", {"README.md": b"---\nconfigs: [{config_name: a, data_files: 'x/*.jsonl'}]\n---\n"})
    made.push("org/uneven", {"README.md": b"", "a.jsonl": b'{"q": "a"}\n', "b.jsonl": b'{"other": 1}\n'})
    made.push("org/gated", {"README.md": b"", "train.jsonl": b'{"q": "secret"}\n'})
    made.gated.add("org/gated")
    with serving(made):
        yield made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cache is, and where the readings below start."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "org" / "data").mkdir(parents=True)  # a folder called as a dataset is no dataset of the hub
    (folder / "org" / "data" / "train.jsonl").write_text('{"q": "of a folder"}\n')
    (folder / "rows.csv").write_text("q\nof a file\n")
    return folder


def environment(home: Path, url: str, *, offline: bool = False) -> dict[str, str]:
    return {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}


def read(home: Path, url: str, wanted: Sequence[Wanted], *, offline: bool = False) -> dict[Wanted, Found]:
    """What each reading found. Nothing is printed: no progress, no advice."""
    command = [sys.executable, "-c", READ, json.dumps(wanted)]
    env = environment(home, url, offline=offline)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120, cwd=home)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return dict(zip(wanted, map(json.loads, done.stdout.splitlines()), strict=True))


ROWS: Mapping[Wanted, Sequence[str]] = {
    ("hf://org/data/main#train", None): ["a", "b"],
    ("hf://org/data/main#test", None): ["new"],
    ("hf://org/data/main#test", "main"): ["new"],
    ("hf://org/data/main#test", "OLD"): ["old"],
    ("hf://org/data/other", None): ["o"],
    ("hf://org/one", None): ["only"],
    ("hf://org/one#train", None): ["only"],
}
ERRORS: Mapping[Wanted, str] = {
    ("hf://org/data", None): r"hf://org/data has the configs main, other; say which: hf://org/data/main$",
    ("hf://org/data/mian#train", None): r"hf://org/data has no config 'mian'; it has main, other$",
    (
        "hf://org/data/main",
        None,
    ): r"hf://org/data/main has the splits train, test; say which: hf://org/data/main#train$",
    ("hf://org/data/main#dev", None): r"hf://org/data/main has no split 'dev'; it has train, test$",
    ("hf://org/data/main#test", "v9"): r"hf://org/data has no revision 'v9'; it has main$",
    ("hf://org/absent", None): r"hf://org/absent: the hub has no dataset of this name, or it is private.*HF_TOKEN",
    ("hf://csv", None): r"hf://csv: the hub has no dataset of this name",
    ("hf://org/scripted", None): r"is made by a script \(scripted.py\), and no code that comes with data is run",
    ("hf://org/empty", None): r"it has no files that `datasets` reads as rows",
    ("hf://org/nothing", None): r"it has no files that `datasets` reads as rows",
    ("hf://org/uneven", None): r"its files are no rows of one kind: .*other",
    (
        "hf://org/gated",
        None,
    ): r"it is gated: ask for access at https://huggingface.co/datasets/org/gated, then set HF_TOKEN",
}


@pytest.fixture(scope="module")
def found(hub: Hub, home: Path) -> Mapping[Wanted, Found]:
    """What reading each of them gives, with the second commit's hash for `OLD`."""
    old = next(iter(hub.commits["org/data"]))
    wanted = [(path, old if revision == "OLD" else revision) for path, revision in (*ROWS, *ERRORS)]
    given = read(home, hub.url, wanted)
    return dict(zip((*ROWS, *ERRORS), given.values(), strict=True))


@pytest.mark.parametrize("wanted", ROWS, ids=str)
def test_rows_of_the_hub_are_those_of_its_commit(found: Mapping[Wanted, Found], hub: Hub, wanted: Wanted) -> None:
    rows, notes = found[wanted]["rows"], found[wanted]["notes"]
    assert [row["q"] for _, row in rows] == ROWS[wanted]
    path, revision = wanted
    place, _, number = rows[-1][0].rpartition(" row ")
    assert place.startswith(path)
    assert place.endswith(("#train", "#test"))
    assert int(number) == len(rows)
    head = hub.heads[path.removeprefix("hf://").partition("#")[0].removesuffix("/main").removesuffix("/other")]
    said = [f"read as of commit {head}; as `revision` in data.source it stays that"]
    assert notes == ([] if revision == "OLD" else said)


@pytest.mark.parametrize("wanted", ERRORS, ids=str)
def test_what_cannot_be_read_says_what_there_is(found: Mapping[Wanted, Found], wanted: Wanted) -> None:
    error = found[wanted]["error"]
    assert re.search(ERRORS[wanted], error), error
    assert "\n" not in error
    assert len(error) < 500


def test_offline_it_is_what_the_cache_has_or_refused(found: Mapping[Wanted, Found], hub: Hub, home: Path) -> None:
    readings = [("hf://org/one", None), ("hf://org/one", hub.heads["org/one"]), ("hf://org/one", "main")]
    absent = [("hf://org/absent", None), ("hf://csv", None), ("hf://org/one/other", None)]
    before = len(hub.requests)
    one, same, unknown, *errors = read(home, hub.url, [*readings, *absent], offline=True).values()
    assert len(hub.requests) == before
    assert one["rows"] == same["rows"] == [["hf://org/one#train row 1", {"q": "only"}]]
    assert f"commit {hub.heads['org/one']}" in one["notes"][0]
    assert "what was cached last is commit" in unknown["error"]
    assert "HF_HUB_OFFLINE=1, and it is not in the cache; unset it once" in errors[0]["error"]
    assert "HF_HUB_OFFLINE=1, and it is not in the cache" in errors[1]["error"]
    assert "Available configs in the cache: ['default']" in errors[2]["error"]


def test_without_a_hub_that_answers_it_is_said_at_once(home: Path) -> None:
    start = time.monotonic()
    ((_, answer),) = read(home, "http://127.0.0.1:9", [("hf://org/one", None)]).items()
    assert re.match(
        r"hf://org/one: the hub cannot be reached: .*HF_HUB_OFFLINE=1 takes it from the cache", answer["error"]
    )
    assert time.monotonic() - start < 15  # `datasets` itself tries six times, for 23 seconds


def test_a_second_reading_is_of_the_same_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    asked = []

    def opened(address: HubAddress, revision: str | None) -> OpenedSplit:
        asked.append(revision)
        return OpenedSplit(Dataset.from_list([{"q": "a"}]), str(address), "a" * 40)

    monkeypatch.setattr("distillkit_builtin.datasets.hf.open_on_hub", opened)
    check_plugin(HuggingFaceDataset(path="hf://org/one#train"))
    assert asked == [None, "a" * 40, "a" * 40]
