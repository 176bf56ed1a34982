"""`data.format`, `data.filter` and `data.sort` in a config: what is refused, with file, line and key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillkit import Registry, RunConfig
from distillkit.config.load import load_config
from distillkit.errors import ConfigError

TEACHERS = "teachers: [{model: a, route_value: math, scorer: fake}, {model: b, route_value: prose, scorer: fake}]\n"
ONE = "teachers: [{model: a, scorer: fake}]\n"


@pytest.fixture
def load(tmp_path: Path, registry: Registry) -> Callable[..., RunConfig]:
    def loaded(data: str, teachers: str = ONE) -> RunConfig:
        path = tmp_path / "config.yaml"
        path.write_text(f"student: fake\n{teachers}data:\n  path: rows.jsonl\n{data}", encoding="utf-8")
        return load_config([path], registry=registry)[0]

    return loaded


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (
            "  format:\n    promt: x\n",
            6,
            "data.format.promt: unknown key; did you mean 'prompt'? Known: prompt, system, me",
        ),
        (
            "  format:\n    system: x\n    prompt: '{{ x'\n",
            7,
            "data.format.prompt: Jinja cannot read it: unexpected end",
        ),
        (
            "  format:\n    prompt: '{{ x | uper }}'\n",
            6,
            "data.format.prompt: Jinja cannot read it: No filter named 'up",
        ),
        (
            "  format:\n    messages: [{role: user, content: '{{'}]\n",
            6,
            "data.format.messages: [0] .content Jinja cannot",
        ),
        ("  format:\n    fields: {a: '{{'}\n", 6, "data.format.fields: .a Jinja cannot read it"),
        ("  format:\n    teacher_prompt: {math: '{%'}\n", 6, "data.format.teacher_prompt: .math Jinja cannot read it"),
        (
            "  format: {prompt: x, messages: y}\n",
            5,
            "data.format: has `messages` and `prompt`, which make the same mess",
        ),
        (
            "  format: {teacher_system: x, teacher_messages: y}\n",
            5,
            "data.format: has `teacher_messages` and `teacher_sy",
        ),
        (
            "  format: {fields: {tools: x}}\n",
            5,
            "data.format: fields: 'tools' is a key of data.format itself; write data",
        ),
        ("  filter: 'level >'\n", 5, "data.filter: Jinja cannot read it: unexpected 'end of template'"),
        ("  filter: '{{ level > 3 }}'\n", 5, "data.filter: is an expression, which stands here without braces"),
        ("  sort: {by: 'a b'}\n", 5, "data.sort.by: Jinja cannot read it: something stands behind the expression"),
        ("  sort: 'a b'\n", 5, "data.sort.by: Jinja cannot read it: something stands behind the expression"),
        ("  sort: {by: level, order: up}\n", 5, "data.sort.order: unknown key"),
        ("  format:\n    prompt: {{ question }}\n", 6, "put a template in quotes: '{{ column }}'"),
    ],
)
def test_what_is_wrong_has_file_line_and_key(
    load: Callable[..., RunConfig], tmp_path: Path, data: str, line: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(data)
    assert str(caught.value).startswith(f"{tmp_path}/config.yaml:{line}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "teachers", "message"),
    [
        (
            "  format: {teacher: math}\n",
            ONE,
            "data.format.teacher: router 'single' takes a row's teacher from no field",
        ),
        (
            "  format: {teacher_prompt: {a: x}}\n",
            ONE,
            "data.format.teacher_prompt: router 'single' takes a row's teacher",
        ),
        (
            "  format: {teacher: math, fields: {teacher: prose}}\n",
            TEACHERS,
            "data.format: `teacher` and `fields.teacher` make the same field; take one out",
        ),
        (
            "  format: {teacher_system: {maths: x}}\n",
            TEACHERS,
            "data.format.teacher_system: no teacher has the route value 'maths'; did you mean 'math'? Known: math",
        ),
    ],
)
def test_routes_that_rows_cannot_have(load: Callable[..., RunConfig], data: str, teachers: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(data, teachers)
    assert message in str(caught.value)


def test_what_is_given(load: Callable[..., RunConfig]) -> None:
    text = (
        "  format: {prompt: '{{ q }}', system: null, teacher: math, fields: {a: 1}}\n  sort: level\n  filter: a > 1\n"
    )
    config = load(text, TEACHERS)
    assert config.data.format.given == {"prompt": "{{ q }}", "teacher": "math", "fields": {"a": 1}}
    assert config.data.sort is not None
    assert (config.data.sort.by, config.data.sort.descending) == ("level", False)
    assert load("").data.format.given == {}


def test_a_resolved_config_is_the_same_config(load: Callable[..., RunConfig], registry: Registry) -> None:
    config = load("  format: {teacher_prompt: {math: '{{ q }}'}, tools: []}\n  sort: level\n", TEACHERS)
    dumped: dict[str, Any] = config.dump()
    assert RunConfig(registry=registry, **dumped).dump() == dumped
