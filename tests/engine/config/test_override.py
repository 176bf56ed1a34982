"""Overrides: where they reach, and what is said of those that fit nowhere."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from distillkit.config.load import apply_override, load_config
from distillkit.errors import ConfigError
from engine.config.config_texts import SHORT, write


def test_overrides_reach_everything(tmp_path: Path) -> None:
    config, _ = load_config(
        [write(tmp_path, SHORT)],
        ["train.max_steps=7", "teachers.0.scorer.micro_batch_tokens=64", "data.max_rows=3", "name=other", "sinks=[]"],
    )
    assert (config.train.max_steps, config.data.max_rows, config.data.path) == (7, 3, "prompts.jsonl")
    assert config.dump()["teachers"][0]["scorer"]["micro_batch_tokens"] == 64  # type: ignore[index,call-overload]
    assert (config.name, config.sinks) == ("other", ())


def test_overrides_reach_into_plugins_that_are_named_alone(tmp_path: Path) -> None:
    short = SHORT.replace("{model: t}", "{model: t, scorer: local}") + "sinks: [console]\n"
    config, _ = load_config(
        [write(tmp_path, short)], ["sinks.0.show_examples=false", "teachers.0.scorer.micro_batch_tokens=64"]
    )
    dump = config.dump()
    assert dump["sinks"] == [{"name": "console", "show_examples": False, "heartbeat_seconds": 30.0}]
    assert dump["teachers"][0]["scorer"]["micro_batch_tokens"] == 64  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nothing", "wants section.key=value"),
        ("=3", "wants section.key=value"),
        ("name.deep=1", "'name' has no key 'deep'"),
        ("teachers.5.model=x", "the list has items 0 to 0, not '5'"),
        ("teachers.model=x", "not 'model'; the number of the item comes first: teachers.0.model"),
        (
            "train={max_steps: 3, lr: 1}",
            "would replace the whole section; set single keys: write train.max_steps and tr",
        ),
        ("train={}", "write train.KEY"),
        ("teachers.first.model=x", "the list has items 0 to 0, not 'first'"),
        ("name={", "the value is not YAML"),
        ("name=!!timestamp 2024-13-45", "the value is not YAML; quote it"),
        ("name={[1]: 2}", "the value is not YAML"),
        ("numbers.0.deep=1", "'0' has no key 'deep'"),
    ],
)
def test_overrides_that_fit_nowhere(override: str, message: str) -> None:
    tree: dict[str, Any] = {"name": 3, "numbers": [5], "teachers": [{"model": "t"}]}
    with pytest.raises(ConfigError, match="override") as caught:
        apply_override(tree, override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.format.prompt={{ question }}", """'data.format.prompt="{{ question }}"'"""),
        ("data.filter='b' == a", """'data.filter="'"'"'b'"'"' == a"'"""),
        ("teachers.0.api_key={{ x }}", "quote it"),
        ("data.format.prompt={{ question }}" + "x" * 300, "quote it"),
    ],
)
def test_a_template_that_is_not_yaml_is_answered_with_the_argument_that_is(override: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_override({"teachers": [{}]}, override)
    said = str(caught.value)
    assert said.endswith(f"the value is not YAML; {line if line == 'quote it' else f'write {line}'}")
    if line != "quote it":
        tree: dict[str, Any] = {}
        apply_override(tree, *shlex.split(line))
        assert tree["data"]


def test_an_override_of_a_sort_in_short_keeps_what_it_sorts_by() -> None:
    tree: dict[str, Any] = {"data": {"path": "x", "sort": "level"}}
    apply_override(tree, "data.sort.descending=true")
    assert tree["data"]["sort"] == {"by": "level", "descending": True}


def test_a_wrong_override_is_blamed_and_not_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([write(tmp_path, SHORT)], ["train.max_step=2", "router=feild"])
    lines = str(caught.value).splitlines()
    assert any(line.startswith("override 'train.max_step=...': train.max_step: unknown key") for line in lines)
    assert any(line.startswith("override 'router=...': router: no router is named 'feild'") for line in lines)


def test_the_name_of_a_plugin_that_an_override_chose_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("data: x.jsonl\nstudent:\n  name: local\n  model: m\nteachers: [{model: t}]\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config([file], ["student.name=locl", "teachers.0.scorer.name=vllm"])
    lines = str(caught.value).split("\n")
    assert any(line.startswith("override 'student.name=...': student: no student is named 'locl'") for line in lines)
    assert any("no scorer is named 'vllm'; here it is scorer=http" in line for line in lines)
    assert not any(str(file) in line for line in lines)
