"""`run` and `check` from Python: overrides, values in the place of a printed page, and reprs of one line."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question
from pydantic import PrivateAttr

import distillkit
from distillkit import CheckResult, ConfigError, InputError, RunConfig, significant
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import FakeScorer, FakeStudent

Make = Callable[..., RunConfig]
PLUGINS = (FakeStudent, FakeScorer)


class OwnStudent(FakeStudent):
    """No registry knows it."""

    name: ClassVar[str] = "own"


@pytest.fixture
def mapping(tmp_path: Path, jsonl: Callable[..., str]) -> dict[str, Any]:
    """Rows for two teachers, as a mapping of plain values."""
    rows = [question(f"number {i}", teacher="ab"[i % 2]) for i in range(6)]
    return {
        "name": "fake",
        "log_path": str(tmp_path / "runs" / "{name}"),
        "data": {"path": jsonl(rows), "eval_path": jsonl(rows[:2], "heldout.jsonl")},
        "student": {"name": "fake", "learning_rate": 30.0},
        "teachers": [{"model": "m", "route_value": name, "scorer": {"name": "fake", "likes": name}} for name in "ab"],
        "sampling": {"max_completion_tokens": 12},
        "train": {"prompt_groups_per_step": 2},
        "sinks": [],
    }


OVER: Mapping[str, object] = {
    "train.max_steps": 1,
    "name": "short",
    "student.learning_rate": 3.0,
    "teachers.1.scorer.likes": "q",
    "sampling.max_completion_tokens": 5,
}


def require_overridden(config: RunConfig) -> None:
    scorers = [teacher.scorer for teacher in config.teachers]
    assert (config.name, config.train.max_steps, config.train.prompt_groups_per_step) == ("short", 1, 2)
    assert isinstance(config.student, FakeStudent)
    assert (config.student.learning_rate, config.sampling.max_completion_tokens) == (3.0, 5)
    assert [scorer.likes for scorer in scorers if isinstance(scorer, FakeScorer)] == ["a", "q"]


def test_overrides_lie_over_a_mapping_a_file_and_a_config(mapping: dict[str, Any], tmp_path: Path) -> None:
    from distillkit.files.atomic import write_json

    write_json(tmp_path / "config.json", mapping)
    before = repr(mapping)
    config, _ = distillkit.api.resolve(mapping, PLUGINS)
    for given in (mapping, tmp_path / "config.json", config):
        require_overridden(distillkit.check(given, overrides=OVER, plugins=PLUGINS).config)
    assert repr(mapping) == before
    assert config.name == "fake"
    assert distillkit.run(config, overrides=OVER, plugins=PLUGINS).steps == 1


def test_plugins_made_in_python_keep_their_class_and_other_options(fake_config: Make) -> None:
    config = fake_config(student=OwnStudent(learning_rate=2.0, context=999))
    found = distillkit.check(config, overrides={"student.learning_rate": 5, "teachers.0.weight": 2}).config
    assert isinstance(found.student, OwnStudent)
    assert (found.student.learning_rate, found.student.context) == (5.0, 999)
    assert found.teachers[0].weight == 2
    assert config.student.model_dump() == {"sampler": None, "learning_rate": 2.0, "context": 999}


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"train.max_step": 3}, "override 'train.max_step=...': train.max_step: unknown key; did you mean 'max_steps'"),
        ({"student.lr": 3}, "unknown key; here it is student.learning_rate"),
        ({"student.learning_rate": "sk-secret"}, "learning_rate: input should be a valid number"),
        ({"teachers.7.model": "x"}, "override 'teachers.7.model=...': the list has items 0 to 1, not '7'"),
        (
            {"train": {"max_steps": 3}},
            "override 'train=...': would replace the whole section; set single keys: write tr",
        ),
        ({"student": {"learning_rate": 3}}, "write student.learning_rate"),
        ({"teacher.model": "x"}, "override 'teacher.model=...': teacher: unknown key; did you mean 'teachers'"),
        ({"teachers.model": "x"}, "the number of the item comes first: teachers.0.model"),
        ({"name.first": "x"}, "name.first: unknown key"),
        ({"seed.first": "x"}, "override 'seed.first=...': 'seed' has no key 'first'"),
    ],
)
@pytest.mark.parametrize("as_config", [True, False])
def test_wrong_overrides_are_named(
    mapping: dict[str, Any], over: dict[str, object], message: str, as_config: bool
) -> None:
    mapping["seed"] = 3
    config, _ = distillkit.api.resolve(mapping, PLUGINS)
    if "name.first" in over:  # a text is short for a mapping with that name
        message = "name: input should be a valid string"
    with pytest.raises(ConfigError) as error:
        distillkit.check(config if as_config else mapping, overrides=over, plugins=PLUGINS)
    assert message in str(error.value)


def test_the_n_of_a_sampler_is_named_here(mapping: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sampling\.n: unknown key; here it is sampling\.completions_per_prompt"):
        distillkit.check(mapping, overrides={"sampling.n": 4}, plugins=PLUGINS)


def test_a_mapping_is_taken_where_it_is_the_option_or_another_plugin(mapping: dict[str, Any]) -> None:
    over = {"sampling.chat_template_kwargs": {"deep": True}, "student": {"name": "fake", "learning_rate": 7.0}}
    config = distillkit.check(mapping, overrides=over, plugins=PLUGINS).config
    assert config.sampling.chat_template_kwargs == {"deep": True}
    assert isinstance(config.student, FakeStudent)
    assert (config.student.learning_rate, config.sampling.max_completion_tokens) == (7.0, 12)


def test_check_gives_what_the_command_prints_and_writes_nothing(mapping: dict[str, Any], tmp_path: Path) -> None:
    found = distillkit.check(mapping, plugins=PLUGINS)
    assert isinstance(found, CheckResult)
    assert (found.ok, found.holds_run, found.rows, found.plan.steps) == (True, False, 6, 3)
    assert found.run_dir == tmp_path / "runs/fake"
    assert found.routes == {"a": 3, "b": 3}
    assert "number 0" in found.prompts["a"]["student"]
    assert found.prompts["b"].keys() == {"student", "b"}
    assert any("3 of 3 rows have no teacher_messages" in note for note in found.notes)
    assert set(found.warnings) < set(found.notes)
    assert not any("no teacher_messages" in warning for warning in found.warnings)
    assert not (tmp_path / "runs").exists()
    assert repr(found).startswith("<CheckResult fake: ok, 6 rows (a 3, b 3), 3 steps, ")
    distillkit.run(mapping, plugins=PLUGINS)
    assert distillkit.check(mapping, plugins=PLUGINS).holds_run


def test_a_check_with_a_probe_measures_and_says_what_that_means(mapping: dict[str, Any], tmp_path: Path) -> None:
    found = distillkit.check(mapping, plugins=PLUGINS, probe=True)
    assert found.probe is not None
    assert (found.ok, found.probe.refused) == (True, ())
    assert {verdict.level for verdict in found.probe.verdicts} <= {"ok", "warn"}
    assert [teacher.teacher for teacher in found.probe.figures.teachers] == ["a", "b"]
    assert repr(found).startswith("<CheckResult fake: ok, 6 rows (a 3, b 3), 3 steps, ")
    assert repr(found.probe).startswith("<ProbeReport: ")
    assert repr(found.probe).endswith(f"; {found.probe.did}>")
    assert max(map(len, (repr(found), repr(found.probe)))) < 160
    assert not (tmp_path / "runs").exists()
    assert distillkit.check(mapping, plugins=PLUGINS).probe is None


async def test_a_check_with_a_probe_works_where_an_event_loop_is_running(mapping: dict[str, Any]) -> None:
    assert distillkit.check(mapping, plugins=PLUGINS, probe=True).probe is not None


def test_a_check_whose_probe_refuses_is_not_ok_and_says_why(mapping: dict[str, Any]) -> None:
    class Forgetful(FakeScorer):
        """Says something else each time."""

        name: ClassVar[str] = "forgetful"
        _asked: int = PrivateAttr(0)

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            async for outcome in super().score(requests):
                self._asked += 1
                assert isinstance(outcome, Score)
                yield replace(outcome, logprobs=outcome.logprobs - 9.0 * (self._asked % 3))

    mapping["teachers"][1]["scorer"] = {"name": "forgetful"}
    found = distillkit.check(mapping, plugins=(*PLUGINS, Forgetful), probe=True)
    assert found.probe is not None
    assert not found.ok
    assert {verdict.level for verdict in found.probe.refused} == {"refuse"}
    assert "b" in found.probe.refused[0].message
    assert "<CheckResult fake: refused by the probe, 6 rows" in repr(found)
    assert f"<ProbeReport: {found.probe.refused[0].what} refuse" in repr(found.probe)


def test_a_check_of_several_processes_probes_by_the_command(
    mapping: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="torchrun -m distillkit check --probe"):
        distillkit.check(mapping, plugins=PLUGINS, probe=True)


def test_check_raises_what_is_wrong(mapping: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl: no such file"):
        distillkit.check(mapping, overrides={"data.path": "absent.jsonl"}, plugins=PLUGINS)


def test_reprs_are_one_short_line(mapping: dict[str, Any], tmp_path: Path) -> None:
    config, _ = distillkit.api.resolve(mapping, PLUGINS)
    assert repr(config) == (
        f"RunConfig(name='fake', data='{tmp_path}/train.jsonl', student='fake', teachers=['fake m', 'fake m'], "
        f"log_path='{tmp_path}/runs/fake')"
    )
    result = distillkit.run(mapping, plugins=PLUGINS)
    before, after = (significant(result.eval[stage]["reverse_kl"]) for stage in ("before", "after"))
    assert repr(result) == (
        f"<RunResult {tmp_path}/runs/fake: 3 steps, reverse_kl {before} -> {after}, {tmp_path}/runs/fake/adapter>"
    )
    assert result.last_line.startswith("done: 3 steps, 6 completions trained, 0 failed, ")


def test_metrics_are_a_list_of_flat_rows(mapping: dict[str, Any]) -> None:
    metrics = distillkit.run(mapping, plugins=PLUGINS).metrics
    assert [row["step"] for row in metrics] == [0, 1, 2, 3]
    assert all(isinstance(value, int | float | None) for row in metrics for value in row.values())


def test_overrides_as_on_the_command_line_are_answered_with_the_mapping(fake_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(InputError, match=r'overrides: is a list; .* overrides=\{"train.max_steps": 5\}'):
        distillkit.check(fake_config(), overrides=["train.max_steps=5"])  # type: ignore[arg-type]
