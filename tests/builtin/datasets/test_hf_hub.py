"""`hf://` against a hub on this machine, in processes of their own: the libraries read HF_ENDPOINT when they are imported."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.hub_server import Hub, serving

from distillkit_builtin.datasets.hf import HuggingFaceDataset

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
FILES = {
    "README.md": CARD,
    "main/train.jsonl": b'{"q": "a"}\n{"q": "b"}\n',
    "main/test.jsonl": b'{"q": "t"}\n',
    "other/x.jsonl": b'{"q": "o"}\n',
}
NEWER = {**FILES, "main/test.jsonl": b'{"q": "newer"}\n'}
Found = Mapping[str, Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf-home")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    made = Hub()
    made.push("org/data", FILES)
    made.push("org/one", {"train.jsonl": b'{"q": "only"}\n'})
    made.push("org/scripted", {"README.md": b"", "scripted.py": b"raise SystemExit", "train.jsonl": b"{}\n"})
    made.push("org/empty", {"README.md": b"", "notes.md": b"nothing"})
    made.push("org/gated", {"README.md": b"", "train.jsonl": b'{"q": "secret"}\n'})
    made.gated.add("org/gated")
    with serving(made):
        yield made


def read(home: Path, url: str, *wanted: tuple[str, str | None], offline: bool = False) -> list[Found]:
    """What each reading found; nothing else is printed."""
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    command = [sys.executable, "-c", READ, json.dumps(wanted)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120, cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_all(home, hub):
    (home / "org" / "data").mkdir(parents=True)
    (home / "org" / "data" / "train.jsonl").write_text('{"q": "local"}')
    old = hub.heads["org/data"]
    hub.push("org/data", NEWER)
    for f in read(
        home,
        hub.url,
        ("hf://org/data/main#train", None),
        ("hf://org/data/main#test", None),
        ("hf://org/data/main#test", old),
        ("hf://org/data/main", None),
        ("hf://org/data", None),
        ("hf://org/data/nope", None),
        ("hf://org/data/main#dev", None),
        ("hf://org/data/main#test", "v9"),
        ("hf://org/one", None),
        ("hf://org/scripted", None),
        ("hf://org/empty", None),
        ("hf://org/gated", None),
        ("hf://org/none", None),
        ("hf://csv", None),
    ):
        print(f)
    print("OFFLINE")
    for f in read(
        home,
        hub.url,
        ("hf://org/data/main#train", None),
        ("hf://org/data/main#test", None),
        ("hf://org/data/main#test", old),
        ("hf://org/data/main", None),
        ("hf://org/data", None),
        ("hf://org/data/nope", None),
        ("hf://org/data/main#test", "v9"),
        ("hf://org/one", None),
        ("hf://org/none", None),
        ("hf://csv", None),
        offline=True,
    ):
        print(f)
    print("NO NET")
    for f in read(home, "http://127.0.0.1:9", ("hf://org/data/main#train", None)):
        print(f)
    print(hub.requests)
