from pathlib import Path

import pytest
from typer.testing import CliRunner

from distillkit.cli.main import app
from distillkit.files.near_paths import did_you_mean, near_path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data" / "gsm8k").mkdir(parents=True)
    for name in ("data/gsm8k_train.jsonl", "data/gsm8k_test.jsonl", "data/gsm8k/rows.jsonl", "data/.hidden_file"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("data/gsm8k_trian.jsonl", "data/gsm8k_train.jsonl"),
        ("data/GSM8K_Test.jsonl", "data/gsm8k_test.jsonl"),
        ("dta/gsm8k_train.json", "data/gsm8k_train.jsonl"),
        ("dat/gms8k/rows.jsonl", "data/gsm8k/rows.jsonl"),
        ("./data/../dat/gsm8k", "data/../data/gsm8k"),
        ("data/other.jsonl", None),
        ("nowhere/at/all", None),
        ("data/hidden_file", None),
        ("data/gsm8k_train.jsonl/rows", None),
        ("data/gsm8k_train.jsonl", None),
        ("", None),
        ("data/\0", None),
    ],
)
def test_the_path_most_alike_is_meant(given: str, meant: str | None) -> None:
    assert near_path(Path(given)) == (None if meant is None else Path(meant))
    assert did_you_mean(given) == ("" if meant is None else f"; did you mean {meant}?")


def test_of_an_absolute_path_too(folder: Path) -> None:
    assert near_path(folder / "data" / "gsm8k_trian.jsonl") == folder / "data" / "gsm8k_train.jsonl"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "confg.yaml"], "confg.yaml: no such config file; did you mean config.yaml?"),
        (["check", "config.yaml", "data.path=data/gsm8k_trian.jsonl"], "did you mean data/gsm8k_train.jsonl?"),
        (["check", "config.yaml", "-p", "my_rooter.py"], "did you mean my_router.py?"),
        (["eval", "dat/gsm8k"], "dat/gsm8k: no such directory; did you mean data/gsm8k?"),
        (["check", "config.yaml", "student=local", "student.model=./moddel"], "directory; did you mean model?"),
    ],
)
def test_every_path_that_a_user_writes_is_answered(words: list[str], said: str, folder: Path) -> None:
    row = '{"messages": [{"role": "user", "content": "hi"}]}\n'
    (folder / "data" / "gsm8k_train.jsonl").write_text(row, encoding="utf-8")
    (folder / "my_router.py").touch()
    (folder / "model").mkdir()
    config = "data: data/gsm8k_train.jsonl\nstudent: {name: local, model: ./model}\nteachers: [{model: t}]\n"
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
