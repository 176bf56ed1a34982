"""Config files of every format: what they say, how later ones win, and on which line a problem is."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from distillkit import Registry
from distillkit.config.load import load_config, merge, read_config_file
from distillkit.errors import ConfigError
from engine.config.config_texts import SHORT, write


def test_yaml_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml = 'data = "prompts.jsonl"\n[student]\nname = "local"\nmodel = "s"\n[[teachers]]\nmodel = "t"\n'
    tree = read_config_file(write(tmp_path, SHORT))
    assert tree == read_config_file(write(tmp_path, toml, "c.toml"))
    assert tree == read_config_file(write(tmp_path, json.dumps(tree), "c.json"))


def test_later_files_win_teachers_merge_by_route_and_a_new_name_drops_old_options() -> None:
    base = {
        "train": {"max_steps": 1, "eval_every": 2},
        "teachers": [{"model": "a", "route_value": "x", "weight": 2.0}, {"model": "b"}],
        "student": {"name": "local", "model": "m", "lora_rank": 3},
    }
    over = {
        "train": {"max_steps": 5},
        "teachers": [{"model": "new", "route_value": "x"}, {"model": "c"}],
        "student": {"name": "fireworks", "model": "m"},
    }
    merged = merge(base, over)
    assert merged["train"] == {"max_steps": 5, "eval_every": 2}
    assert merged["teachers"] == [{"model": "new", "route_value": "x", "weight": 2.0}, {"model": "b"}, {"model": "c"}]
    assert merged["student"] == {"name": "fireworks", "model": "m"}
    assert base["train"] == {"max_steps": 1, "eval_every": 2}


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"data": "a"}, {"data": {"epochs": 2}}, {"data": {"path": "a", "epochs": 2}}),
        ({"data": {"epochs": 2}}, {"data": "b"}, {"data": {"epochs": 2, "path": "b"}}),
        ({"student": "local"}, {"student": {"model": "m"}}, {"student": {"name": "local", "model": "m"}}),
        (
            {"student": {"name": "local", "model": "m"}},
            {"student": "local"},
            {"student": {"name": "local", "model": "m"}},
        ),
        ({"student": {"name": "local", "model": "m"}}, {"student": "other"}, {"student": "other"}),
        ({"loss": "a"}, {"loss": {"name": "b", "scale": 1}}, {"loss": {"name": "b", "scale": 1}}),
        (
            {"teachers": [{"model": "t", "scorer": "local"}]},
            {"teachers": [{"model": "t", "scorer": {"dtype": "x"}}]},
            {"teachers": [{"model": "t", "scorer": {"name": "local", "dtype": "x"}}]},
        ),
        ({"name": "run"}, {"name": {"a": 1}}, {"name": {"a": 1}}),
        (
            {"data": {"sort": "level"}},
            {"data": {"sort": {"descending": True}}},
            {"data": {"sort": {"by": "level", "descending": True}}},
        ),
    ],
)
def test_what_is_said_in_short_merges_like_what_it_is_short_for(
    base: dict[str, Any], over: dict[str, Any], merged: dict[str, Any]
) -> None:
    assert merge(base, over) == merged


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: x\nstudnet: {name: local, model: m}\nteachers: [{model: t}]", ":2: studnet: unknown key; did you mean"),
        ("data: x\nstudent:\n  name: local\n  modle: m\nteachers: [{model: t}]", ":4: student.modle: unknown key"),
        (SHORT + "train:\n  max_steps: -1\n", ":7: train.max_steps: input should be"),
        (SHORT + "router: feild\n", ":6: router: no router is named 'feild'"),
        ("a: 1\nb: {c: 1, c: 2}\n", ":2: the key 'c' stands twice"),
        ("a: [1\n", ":2: "),
        ("a: 1\nb: level > 3: x\n", ":2: mapping values are not allowed here; a text that holds `: ` stands in quotes"),
        ("a: 1\n? [b]\n: 2\n", ":2: a sequence is no key; a key is plain text"),
        ("a: 1\nb: {{c: 1}: 2}\n", ":2: a mapping is no key"),
        ("a: 1\nyes: 2\n", ":2: the key 'yes' is no text for YAML; put it in quotes"),
        ("a: !!timestamp 2024-13-45\n", "config.yaml:1: month must be in 1..12"),
        (SHORT + "registry: x\n", ":6: registry: unknown key; "),
        (SHORT + "self: x\n", ":6: self: unknown key; "),
        ("- a list\n", "holds no sections"),
        ("", "holds no sections"),
        ("plugins: 5\n" + SHORT, "plugins: wants a list of Python files"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.ini", "", "config files end in .yaml, .toml or .json"),
        ("c.json", "{", "c.json: "),
        ("c.toml", "a =", "c.toml: "),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config_file(write(tmp_path, text, name))
    with pytest.raises(ConfigError, match="no such config file; `distillkit init`"):
        read_config_file(tmp_path / "absent.yaml")


def test_json_with_tabs_has_lines_too(tmp_path: Path) -> None:
    text = '{\n\t"data": "x",\n\t"student": {"name": "local", "model": "m"},\n\t"teechers": [{"model": "t"}]\n}'
    with pytest.raises(ConfigError, match=r"c\.json:4: teechers: unknown key; did you mean 'teachers'"):
        load_config([write(tmp_path, text, "c.json")])


def test_a_problem_without_a_line_is_told_all_the_same(tmp_path: Path) -> None:
    text = '{"data": "x", "' + "k" * 2000 + '": 1, "teachers": [{"model": "t"}], "student": {"name": "local"}}'
    with pytest.raises(ConfigError, match=r"c\.json: student\.model: is required"):
        load_config([write(tmp_path, text, "c.json")])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("model = 's'\nlora_rnk = 4", r"c\.toml:6: student\.lora_rnk: unknown key"),
        ("model = 's'\n[trian]\nmax_steps = 4", r"c\.toml:6: trian: unknown key"),
        ("model = 5", r"c\.toml: student\.model: input should be a valid string"),  # the teacher has a model too
        ("lora_rank = 4", r"c\.toml: student\.model: is required"),
    ],
)
def test_toml_has_a_line_where_only_one_can_be_meant(tmp_path: Path, line: str, message: str) -> None:
    toml = f"data = 'prompts.jsonl'\nteachers = [{{model = 't'}}]\n[student]\nname = 'local'\n{line}\n"
    with pytest.raises(ConfigError, match=message):
        load_config([write(tmp_path, toml, "c.toml")])


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config_file(path)


def test_plugins_of_the_config_are_loaded_before_names_are_looked_up(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        "from distillkit_builtin.routers import SingleRouter\nclass R(SingleRouter):\n    '''R.'''\n    name = 'r'\n",
        "mine.py",
    )
    config, registry = load_config([write(tmp_path, f"{SHORT}plugins: [{script}]\nrouter: r\n")])
    assert config.router.name == "r"
    assert config.plugins == (str(script),)
    assert "r" in registry.names("router")
    assert "r" not in Registry.discover().names("router")


MOVED = '''
from typing import ClassVar
from pydantic import BaseModel, Field
from distillkit_builtin.routers import SingleRouter


class Group(BaseModel):
    size: int = Field(description="Required.")


class Grouped(SingleRouter):
    """Has its options in a group."""

    name: ClassVar[str] = "grouped"
    moved: ClassVar[dict[str, str]] = {"size": "group.size", "cruft": "group.rest"}
    group: Group
'''


def test_an_option_of_a_strangers_plugin_that_moved_is_named_with_its_new_place(tmp_path: Path) -> None:
    script = write(tmp_path, MOVED, "mine.py")
    text = f"{SHORT}plugins: [{script}]\nrouter:\n  name: grouped\n  size: 3\n  other: 4\n"
    with pytest.raises(ConfigError) as caught:
        load_config([write(tmp_path, text)])
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path / 'config.yaml'}:9: router.size: is now router.group.size"
    assert lines[1].startswith(f"{tmp_path / 'config.yaml'}:10: router.other: unknown key")
    assert len(lines) == 2  # and not that router.group is missing


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "sampling: {template_date: 2026-11-29}"),
        ("c.yaml", "sampling: {template_date: '2026-11-29'}"),
        ("c.toml", "[sampling]\ntemplate_date = 2026-11-29"),
        ("c.json", '{"sampling": {"template_date": "2026-11-29"}}'),
    ],
)
def test_a_day_is_written_as_it_is_in_every_format(tmp_path: Path, registry: Registry, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    teacher = {"model": "t", "scorer": {"name": "fake"}}
    extra = {"data": "rows.jsonl", "student": {"name": "fake"}, "teachers": [teacher]}
    for overrides in ([], ["sampling.template_date=2026-11-29"]):
        config, _ = load_config([tmp_path / name], overrides, registry=registry, extra=extra)
        assert config.sampling.template_date == date(2026, 11, 29)
