"""Config files and overrides that no one would write on purpose: exit code 2, a line to look at, and no traceback."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from distillkit.cli.main import app
from distillkit.config.load import apply_override, load_config, merge, read_config_file
from distillkit.config.parse import MAX_BYTES
from distillkit.errors import ConfigError

VALID = "data: train.jsonl\nstudent: fake\nteachers:\n  - {model: t, scorer: fake}\n"
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
MERGES = "a0: &a0 {" + ", ".join(f"x{i}: 1" for i in range(2000)) + "}\na1: {<<: [" + "*a0, " * 200 + "]}\n"
SECONDS = 20.0
"""More than any of these needs on a busy machine, and less than a hang."""


def write(folder: Path, text: str | bytes, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> str:
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    assert time.monotonic() - started < SECONDS
    said = str(caught.value)
    assert len(said) < 10_000
    return said


def check(*arguments: object) -> Result:
    done = CliRunner().invoke(app, ["check", *map(str, arguments)])
    assert "Traceback" not in done.output
    return done


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (VALID + "x: " + "[" * 10_000, "config.yaml: is nested too deeply"),
        (VALID + "x: " + "[" * 101 + "]" * 101, "config.yaml: is nested too deeply: more than 100"),
        (VALID + "x: 1\nx: 2\n", "config.yaml:6: the key 'x' stands twice"),
        (LAUGHS, "config.yaml: is too large, at least once its aliases (*name) are written out"),
        ("a: &a " + "x" * 5000 + "\nb: [" + "*a, " * 5000 + "]", "config.yaml: is too large, at least once"),
        (MERGES, "`<<` brings more than 100000 keys together"),
        ("a: &a [*a]", "config.yaml:1: found unconstructable recursive node"),
        ("a: &a {<<: *a}", "config.yaml:1: a: unknown key"),
        ("\na: !!python/object/apply:os.system [x]", "config.yaml:2: could not determine a constructor for the tag"),
        ("a: 1\nb: !!bool maybe", "config.yaml:2: this is no bool"),
        ("a: 1\nb: !!int ''", "config.yaml:2: this is no int"),
        ("a: 1\nb: !!timestamp x", "config.yaml:2: this is no timestamp"),
        ("a: 1\nb: !!map [1]", "config.yaml:2: a sequence is no mapping"),
        ("a: 1\nb: 0x_", "config.yaml:2: invalid literal for int"),
        ("a: 1\nb: 1" + "0" * 5000, "config.yaml:2: a number has no more than 100 characters"),
        ("a: 1\nb: !!set {x}", "config.yaml:2: b: is read as a set; put it in quotes"),
        ("a: 1\nb: !!omap [c: 1]", "config.yaml:2: b.0: is read as a tuple"),
        ("a: 1\nb: !!timestamp 2024-01-01", "config.yaml:2: b: is read as a date; put it in quotes"),
        ("a: 1\nb: 0x" + "f" * 16, "config.yaml:2: b: is an integer beyond 64 bits"),
        ("a: 1\nb: 1" + ":1" * 100_000, "config.yaml:2: a number has no more than 100 characters"),
        ("a: 1\nb: 012", "config.yaml:2: YAML reads 012 to the base of 8, as 10: write 10, or quote it"),
        ("a: 1\nb: [12:30]", "config.yaml:2: YAML reads 12:30 to the base of 60, as 750: write 750, or quote it"),
        ("a: 1\nb: 1:30.5", "config.yaml:2: YAML reads 1:30.5 to the base of 60, as 90.5: write 90.5, or quote it"),
        ('a: 1\nb: ["\\ud800"]', "config.yaml:2: b.0: holds half of a surrogate pair"),
        ('a: 1\nb: "\\0"', "config.yaml:2: b: holds a NUL character (\\0), which no option takes"),
        ("a: 1\nb: \0", "config.yaml:2: the character #x0000 may not stand in YAML"),
        ('a: "\\UD8000000"', "config.yaml: "),
        (b"a: 1\nb: \xff", "config.yaml:2: cannot be read: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: x" * MAX_BYTES, "config.yaml: is larger than 256 KiB, which is no config; is it data?"),
        ("".join(f"k{i}: 1\n" for i in range(3000)), "... and 2983 more problems"),
        ("? " + "k" * 50_000 + "\n: 1\n", "unknown key; Known: name, seed"),
    ],
)
def test_yaml(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in refusal(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "c.json",
            '{"name": "x",\n "train": {"max_steps": 1,\n "max_steps": 2}}',
            "c.json:3: holds the key 'max_steps'",
        ),
        ("c.json", '{"a": NaN}', "c.json: holds NaN, which JSON does not have"),
        ("c.json", '{"a": 1e400}', "c.json: holds 1e400, beyond what a float can be"),
        ("c.json", '{"a": 1' + "0" * 5000 + "}", "c.json:1: has an integer of more than 4300 digits"),
        ("c.json", '{"a": 1,\n"b": 99999999999999999999}', "c.json:2: b: is an integer beyond 64 bits"),
        ("c.json", "[" * 10_000, "c.json: is nested too deeply"),
        ("c.json", '{"a": "\\ud800"}', "c.json:1: a: holds half of a surrogate pair"),
        ("c.json", "{\0}", "c.json: Expecting property name"),
        ("c.toml", "a = 1\na = 2", "c.toml: Cannot overwrite a value (at end of document)"),
        ("c.toml", "a = " + "[" * 10_000, "c.toml: is nested too deeply"),
        ("c.toml", "a" + ".a" * 100_000 + " = 1", "c.toml: holds a key of more than 100 parts"),
        ("c.toml", "a = 1\nb = 0x" + "f" * 6000, "c.toml:2: b: is an integer beyond 64 bits"),
        ("c.toml", "a = 2024-01-01T10:00:00", "c.toml:1: a: is read as a datetime; put it in quotes"),
        ("c.toml", "a = \0", "c.toml: Invalid value"),
    ],
)
def test_json_and_toml(tmp_path: Path, name: str, text: str, message: str) -> None:
    assert message in refusal(write(tmp_path, text, name))


@pytest.mark.parametrize("name", ["c.yaml", "c.toml", "c.json"])
def test_a_mark_at_the_start_and_windows_line_ends_do_no_harm(tmp_path: Path, name: str) -> None:
    texts = {"c.yaml": "a: 1\r\nb: x\r\n", "c.toml": 'a = 1\r\nb = "x"\r\n', "c.json": '{"a": 1,\r\n"b": "x"}\r\n'}
    path = write(tmp_path, "\ufeff" + texts[name], name)
    assert read_config_file(path) == {"a": 1, "b": "x"}


def test_anchors_and_merge_keys_are_for_those_who_use_them_in_moderation(tmp_path: Path) -> None:
    path = write(tmp_path, "a: &a {x: 1, y: [1]}\nb: *a\nc: {<<: *a, x: 2}\nd: {<<: [*a, {z: 3}]}\n")
    assert read_config_file(path) == {
        "a": {"x": 1, "y": [1]},
        "b": {"x": 1, "y": [1]},
        "c": {"x": 2, "y": [1]},
        "d": {"x": 1, "y": [1], "z": 3},
    }


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        assert refusal(path) == f"{path}: cannot be read: it is no regular file, and a config is read more than once"
    assert refusal(tmp_path) == f"{tmp_path}: is a directory, and a config is a file"
    assert refusal(Path("a\0.yaml")) == "'a\\x00.yaml': no such config file; no file can be called that"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teachers.².model=x", "the list has items 0 to 0, not '²'"),
        ("teachers.-1.model=x", "the list has items 0 to 0, not '-1'"),
        ("teachers." + "9" * 5000 + ".model=x", "the list has items 0 to 0, not '99999"),
        ("none.0=x", "the list has no items, not '0'"),
        ("a" + ".a" * 10_000 + "=1", "the key has more than 100 parts"),
        ("name=" + "[" * 10_000, "the value is not YAML; quote it"),
        ("name=" + "[" * 150 + "]" * 150, "the value is nested too deeply"),
        ("name=012", ": YAML reads 012 to the base of 8, as 10: write 10, or quote it"),
        ("name=!!bool x", "the value is not YAML; quote it"),
        ("name=!!python/object:os.system x", "the value is not YAML; quote it"),
        ("name=0x" + "f" * 16, "the value is an integer beyond 64 bits"),
        ('name="\\ud800"', "the value holds half of a surrogate pair"),
        ('name="\\0"', "the value holds a NUL character"),
        ("name=\udcff", "the value is not YAML; quote it"),
        ('name="\\UFFFFFFFF"', "the value "),
        ("name=!!timestamp 2024-01-01", "the value is read as a date; put it in quotes"),
    ],
)
def test_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match="override") as caught:
        apply_override({"name": "x", "teachers": [{"model": "t"}], "none": []}, override)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_teachers_whose_route_is_no_text_are_merged_all_the_same() -> None:
    odd = {"teachers": [{"model": ["a"]}, {"model": {"b": 1}}]}
    assert merge(odd, {"teachers": [{"model": ["a"], "weight": 2}]}) == {
        "teachers": [{"model": ["a"], "weight": 2}, {"model": {"b": 1}}]
    }


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "a/b", "/etc/x", "a\\b", "~/x", "a\n", "\u2025", "-x", "{name}", "nul\u0000"]
)
def test_a_runs_name_does_not_climb(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, json.dumps({"name": name, "data": "x", "student": "fake", "teachers": [{"model": "t"}]}))
    assert "config.yaml:1: name: " in refusal(path)


@pytest.fixture
def data(tmp_path: Path, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(jsonl([b'{"messages": [{"role": "user", "content": "hi"}]}']))


FAKES = str(Path(__file__).parent.parent / "helpers" / "fake_plugins.py")


def test_the_command_line_says_it_in_a_line_and_exits_with_2(data: Path, tmp_path: Path) -> None:
    config = write(tmp_path, VALID)
    bad = write(tmp_path, VALID + "x: !!bool maybe\n", "bad.yaml")
    os.mkfifo(tmp_path / "rows")
    (tmp_path / "bad.jsonl").write_bytes(b'{"a": ' * 10_000 + b'\n{"a": 1, "a": 2}\n{"x": NaN}\n\xff\n')
    for arguments, said in (
        ([bad], "bad.yaml:5: this is no bool"),
        ([config, "teachers.².model=x"], "the list has items 0 to 0"),
        ([config, "data.path=rows"], "rows: cannot be read: it is no regular file"),
        ([config, "name=../../x"], "name: string should match pattern"),
        ([config, "data.path=bad.jsonl"], "bad.jsonl:1: line: is nested too deeply"),
    ):
        done = check(*arguments, "-p", FAKES)
        assert (done.exit_code, said in done.output) == (2, True), done.output
    for line in ("bad.jsonl:2: line: holds the key 'a' twice", "bad.jsonl:3: line: holds NaN", "bad.jsonl:4: line: is"):
        assert line in done.output


def test_a_log_path_may_lead_anywhere_on_purpose(data: Path, tmp_path: Path) -> None:
    config = write(tmp_path, VALID)
    for log_path in (tmp_path / "elsewhere" / "{name}", "../up/{name}"):
        done = check(config, f"log_path={log_path}", "name=mine", "-p", FAKES)
        assert done.exit_code == 0, done.output
        assert f"run directory: {str(log_path).replace('{name}', 'mine')}" in done.output
