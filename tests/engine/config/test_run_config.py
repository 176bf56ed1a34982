"""What a config says: defaults that follow from others, and what is wrong with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillkit import RunConfig
from distillkit.config.default_plugins import FILLED_IN
from distillkit.errors import ConfigError
from distillkit_builtin.routers import FieldRouter

Make = Callable[..., RunConfig]


def test_the_short_config_of_the_docs_is_complete() -> None:
    config = RunConfig(
        data="prompts.jsonl", student={"name": "local", "model": "org/student"}, teachers=[{"model": "org/teacher"}]
    )
    assert (config.data.path, config.router.name, config.prompts.name) == ("prompts.jsonl", "single", "messages")
    assert (config.loss.name, [sink.name for sink in config.sinks]) == ("importance_sampling", ["console", "report"])
    assert config.teachers[0].scorer.name == "local"
    assert config.teachers[0].scorer.teacher.name == "org/teacher"
    assert config.evaluators == ()


def test_several_teachers_are_routed_by_field_and_held_out_rows_evaluated() -> None:
    config = RunConfig(
        data={"path": "a", "eval_path": "b"},
        student={"name": "local", "model": "m"},
        teachers=[{"model": "m", "route_value": "x"}, {"model": "m", "route_value": "y"}],
    )
    assert config.router.name == "field"
    assert [evaluator.name for evaluator in config.evaluators] == ["reverse_kl"]


def test_teachers_are_called_as_no_other_of_the_run_is_and_routed_by_their_models() -> None:
    def teachers(*models: str) -> list[tuple[str, str, str]]:
        sections = [{"model": model} for model in models]
        config = RunConfig(data="a", student={"name": "local", "model": "m"}, teachers=sections)
        assert all(section.teacher is section.scorer.teacher for section in config.teachers)
        return [(section.teacher.name, section.teacher.shown, section.teacher.slug) for section in config.teachers]

    assert teachers("org/big") == [("org/big", "big", "big")]
    assert teachers("org/big", "own/big") == [("org/big", "org/big", "org-big"), ("own/big", "own/big", "own-big")]


def test_a_scorer_that_two_configs_use_is_called_as_the_newer_one_calls_it() -> None:
    first = RunConfig(data="a", student={"name": "local", "model": "m"}, teachers=[{"model": "org/big"}])
    section = first.teachers[0]
    assert section.teacher.shown == "big"
    both = [section, {"model": "own/big"}]
    RunConfig(data="a", student={"name": "local", "model": "m"}, teachers=both)
    assert section.teacher.shown == "org/big"


def test_missing_teacher_messages_mean_what_the_recipe_says() -> None:
    config = RunConfig(
        data="a",
        student={"name": "local", "model": "m"},
        teachers=[
            {"model": "m", "route_value": "default key"},
            {"model": "m", "route_value": "own key", "teacher_messages_key": "mine"},
            {"model": "m", "route_value": "told", "teacher_messages_key": "m2", "missing_teacher_messages": "student"},
        ],
    )
    assert [teacher.teacher.missing_messages for teacher in config.teachers] == ["student", "error", "student"]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"tain": {}}, "tain: unknown key; did you mean 'train'?"),
        ({"train": {"max_step": 3}}, "train.max_step: unknown key; did you mean 'max_steps'?"),
        ({"train": {"max_steps": 0}}, "train.max_steps: input should be greater than or equal to 1, not 0"),
        ({"sampling": {"temperature": "hot"}}, "sampling.temperature: input should be a valid number"),
        ({"sampling": {"stop": [""]}}, "sampling.stop: holds an empty string, which would end every completion"),
        ({"sampling": {"stop": ["x", ""]}}, "sampling.stop: holds an empty string, which would end every completion"),
        ({"sampling": {"stop": ["x", "y", "x"]}}, "sampling.stop: holds 'x' twice"),
        ({"sampling": {"stop": ["caf\ufffd"]}}, "which no text contains"),
        ({"sampling": {"stop": ["\ud800"]}}, "sampling.stop"),
        ({"sampling": {"stop": "x"}}, "sampling.stop: input should be a list"),
        ({"sampling": {"stop": [7]}}, "input should be a valid string"),
        ({"sampling": {"stop_ids": [7, 7]}}, "sampling.stop_ids: holds 7 twice"),
        ({"sampling": {"stop_ids": [-1]}}, "greater than or equal to 0"),
        ({"sampling": {"stop_ids": [True]}}, "sampling.stop_ids: 0: input should be a number, not true"),
        ({"train": {"max_steps": True}}, "train.max_steps: input should be a number, not true (YAML reads yes and on"),
        ({"sampling": {"top_k": False}}, "sampling.top_k: input should be a number, not false"),
        ({"guards": {"truncated_rise": True}}, "guards.truncated_rise: input should be a number, not true"),
        ({"student": {"name": "fake", "learning_rate": True}}, "student.learning_rate: input should be a number"),
        (
            {"student": {"name": "local", "model": "m", "lora_rank": False}},
            "student.lora_rank: input should be a number, not false (YAML reads yes and on as true, no and off as "
            "false); write 0 where that is meant",
        ),
        ({"student": {"name": "local", "model": "m", "adam_betas": [0.9, True]}}, "student.adam_betas: 1: input"),
        (
            {"loss": {"name": "importance_sampling", "ratio_gate": {"low": True, "high": 2.0}}},
            "loss.ratio_gate: low: input should be a number, not true",
        ),
        ({"log_path": "~/runs/mine"}, "log_path: ~ is not replaced, write the whole path"),
        ({"sampling": {"stop_ids": ["7"]}}, "input should be a valid integer"),
        ({"sampling": {"stop_ids": 7}}, "sampling.stop_ids: input should be a list"),
        ({"teachers": [{"model": "t", "scorer": {"name": "fake"}, "turn_end": "maybe"}]}, "turn_end"),
        ({"router": "feild"}, "router: no router is named 'feild'; did you mean 'field'?"),
        ({"router": {"name": "field", "rout_key": "x"}}, "router.rout_key: unknown key; did you mean 'route_key'?"),
        ({"loss": {"name": "importance_sampling", "scale": -1}}, "loss.scale: input should be greater than 0, not -1"),
        ({"teachers": []}, "teachers: "),
        ({"teachers": {"model": "m"}}, "teachers: input should be a list, not"),
        ({"teachers": [{"modle": "m", "scorer": "fake"}]}, "teachers.0.modle: unknown key; did you mean 'model'?"),
        ({"teachers": [{"model": "m", "scorer": {"name": "fake", "like": "x"}}]}, "teachers.0.scorer.like: unknown"),
        ({"teachers": [{"model": "m"}, {"model": "m"}]}, "two have the route value 'm'; give each"),
        ({"evaluators": ["reverse_kl"]}, "evaluators: need held-out rows; set data.eval_path"),
        ({"sinks": ["console", "console"]}, "sinks: 'console' stands there twice"),
        ({"name": "a/b"}, "name: "),
        ({"name": "../up"}, "name: "),
        ({"student": None}, "student: wants the name of a student"),
        ({"student": FieldRouter()}, "student: wants an instance of Student"),
    ],
)
def test_what_is_wrong_names_its_key_and_the_closest_match(
    fake_config: Make, over: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        fake_config(**over)
    assert message in str(caught.value)


def test_switches_stay_switches_and_numbers_may_be_texts(fake_config: Make) -> None:
    config = fake_config(data={"path": "a", "shuffle": False}, train={"max_steps": "3"}, sampling={"top_p": "1e-1"})
    assert (config.data.shuffle, config.train.max_steps, config.sampling.top_p) == (False, 3, 0.1)


def test_many_problems_are_reported_at_once(fake_config: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        fake_config(train={"max_steps": 0, "epoch": 1}, router="x")
    assert len(str(caught.value).splitlines()) == 3


def test_the_reference_knows_every_key_that_is_filled_in() -> None:
    """The words beside `with_defaults` name what it fills in."""
    short: dict[str, Any] = {"data": {"path": "a"}, "student": {"name": "local", "model": "m"}}
    long = {**short, "data": {"path": "a", "eval_path": "b"}}
    one, two = [{"model": "m"}], [{"model": "m"}, {"model": "n"}]
    names: dict[str, set[str]] = {}
    for config in (RunConfig(**short, teachers=one), RunConfig(**long, teachers=two)):
        for key in ("router", "prompts", "loss"):
            names.setdefault(key, set()).add(getattr(config, key).name)
        for key in ("evaluators", "sinks"):
            names.setdefault(key, set()).update(plugin.name for plugin in getattr(config, key))
    assert {*names, "data.source", "teachers[].scorer"} == set(FILLED_IN)
    assert all(name in FILLED_IN[key] for key, mine in names.items() for name in mine)
    required = {name for name, field in RunConfig.model_fields.items() if field.is_required()}
    assert required - set(FILLED_IN) == {"data", "student", "teachers"}


def test_configs_are_frozen(fake_config: Make, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="frozen"):
        fake_config().train.max_steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"data": "a"}, ["student", "teachers"]),
        ({"data": "a", "student": {"model": "m"}, "teachers": [{"model": "m"}]}, ["student"]),
        ({"data": "a", "student": {"name": "local", "model": "m"}, "teachers": {"model": "m"}}, ["teachers"]),
    ],
)
def test_what_has_a_default_is_never_said_to_be_required(values: dict[str, Any], keys: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig(**values)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == keys


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            {"loss": {"name": "importance_sampling", "extrapolate": 1.5}},
            "loss.extrapolate: is a group of options: {reference: ..., factor: 1.25}, not 1.5",
        ),
        ({"train": 5}, "train: is a group of the options prompt_groups_per_step, max_steps, "),
        ({"train": {"weightings": "truncated"}}, "not 'truncated'; did you mean [truncated]?"),
        ({"sampling": {"stop_ids": 7}}, "not 7; did you mean [7]?"),
    ],
)
def test_a_value_in_the_place_of_a_group_or_a_list_is_answered_with_how_that_is_written(
    over: dict[str, Any], message: str
) -> None:
    config = {"data": "x.jsonl", "student": {"name": "local", "model": "m"}, "teachers": [{"model": "t"}]}
    with pytest.raises(ConfigError) as caught:
        RunConfig(**{**config, **over})
    assert message in str(caught.value)
