import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import question
from helpers import fake_plugins, limited_plugins
from typer.testing import CliRunner, Result

from distillkit.cli.main import app
from distillkit.config.load import load_config
from distillkit.diagnosis.measurement import offered
from distillkit.diagnosis.route_figures import RouteFigures
from distillkit.preflight.prepared_run import prepare_run

FAKES = fake_plugins.__file__
QUIET: dict[str, Any] = {
    "plugins": [str(limited_plugins.__file__)],
    "student": "quiet",
    "teachers": [
        {"model": "m", "route_value": "a", "scorer": {"name": "quiet", "likes": "abc"}},
        {"model": "m", "route_value": "b", "scorer": "quiet"},
    ],
}
"""Plugins that give nothing beside the sampled tokens."""


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["diagnose", *arguments], env={"COLUMNS": "80"})


@pytest.fixture
def config(tmp_path: Path, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a config of two fake teachers, which cannot write completions; keywords are laid over it."""
    monkeypatch.chdir(tmp_path)
    data = jsonl([question(f"number {i}", teacher="ab"[i % 2]) for i in range(8)])

    def write(**over: Any) -> str:
        values = {
            "data": {"path": data},
            "student": "fake",
            "router": "field",
            "teachers": [
                {"model": "m", "route_value": "a", "scorer": {"name": "fake", "likes": "abc"}},
                {"model": "m", "route_value": "b", "scorer": "fake"},
            ],
            "sampling": {"max_completion_tokens": 64},
            "plugins": [str(FAKES)],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**values, **over}), encoding="utf-8")
        return "config.yaml"

    return write


def test_a_page_of_figures_and_five_sentences_a_route(config: Callable[..., str]) -> None:
    done = call(config())
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("run: 8 rows, 8 completions, ")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout
    assert [line[:2] for line in done.stdout.splitlines() if line[:2] in ("1.", "2.", "3.", "4.", "5.")] == [
        f"{number}." for _ in range(3) for number in range(1, 6)
    ]
    assert "teacher b\n1. The reverse KL (sampling minus teacher) is 0.000 ± 0.000 nats a token over 4\n" in done.stdout
    assert "its scorer cannot write" in done.stdout
    assert not os.path.lexists("runs")


def test_quiet_is_the_five_sentences_alone(config: Callable[..., str]) -> None:
    done = call(config(), "-q")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("1. The reverse KL (sampling minus teacher) is ")
    assert len([line for line in done.output.splitlines() if not line.startswith("   ")]) == 5


def test_json_holds_every_figure_and_nothing_that_is_not_known(config: Callable[..., str]) -> None:
    done = call(config(**QUIET), "--json", "--rows", "6")
    assert done.exit_code == 0, done.output
    page = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert page.keys() == {"name", "sentences", "untouched", "lost", "overall", "routes"}
    fields = set(RouteFigures.__dataclass_fields__)
    assert page["overall"].keys() == fields
    assert {name: route.keys() for name, route in page["routes"].items()} == {
        name: {*fields, "sentences"} for name in "ab"
    }
    assert [len(each) for each in (page["sentences"], page["routes"]["a"]["sentences"])] == [5, 5]
    assert (page["overall"]["rows"], page["routes"]["a"]["rows"], page["routes"]["b"]["rows"]) == (6, 3, 3)
    assert page["routes"]["b"]["gap"]["reverse_kl"] == {"value": 0.0, "standard_error": 0.0}
    assert page["routes"]["a"]["gap"]["reverse_kl"]["value"] > 0.1
    for unknown in ("teacher", "teacher_topk", "topk"):
        assert page["overall"]["entropy"][unknown] is None
    assert page["overall"]["teacher_lengths"] is None


def test_the_same_config_gives_the_same_figures(config: Callable[..., str]) -> None:
    name = config()
    assert call(name, "--json").stdout == call(name, "--json").stdout != call(name, "--json", "seed=1").stdout


def test_a_run_that_is_there_stays_as_it_is(config: Callable[..., str]) -> None:
    name = config()
    run = CliRunner().invoke(app, ["run", name, "train.max_steps=1", "-q"])
    assert run.exit_code == 0, run.output
    before = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*")}
    assert call(name).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("*") if path.name != "run"} == {
        path: time for path, time in before.items() if path.name != "run"
    }


def test_what_is_not_the_policy_s_own_distribution_is_said(config: Callable[..., str]) -> None:
    done = call(config(**QUIET), "sampling.temperature=0.7", "-q")
    assert "5. The student's entropy is not known, and sampling minus teacher is no reverse" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "0"], "greater than or equal to 1"),
        (["trian.max_steps=1"], "trian: unknown key; did you mean 'train'?"),
        (["data.path=absent.jsonl"], "absent.jsonl: no such file"),
        (["sampling.max_completion_tokens=5000"], "more than the 4096 that the student reads"),
    ],
)
def test_wrong_input_is_exit_code_2(config: Callable[..., str], arguments: list[str], message: str) -> None:
    done = call(config(), *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output


BROKEN = """
from distillkit import Failure, Scorer, hookimpl
from distillkit.testing import FakeScorer

class Broken(FakeScorer):
    '''Loses completions of some rows, or all.'''
    name = 'broken'
    async def score(self, requests):
        async for score in super().score(requests):
            lost = EVERY or int(score.request.key.row_id.partition('-')[0]) > 4
            yield Failure(score.request, 'out of order', retryable=False) if lost else score

@hookimpl
def distillkit_scorers():
    return [Broken]
"""


def test_lost_completions_count_nowhere_and_are_said(config: Callable[..., str]) -> None:
    Path("broken.py").write_text(BROKEN.replace("EVERY", "False"), encoding="utf-8")
    done = call(config(router="single", teachers=[{"model": "m", "scorer": "broken"}]), "-p", "broken.py")
    assert done.exit_code == 0, done.output
    assert "run: 4 rows, 4 completions" in done.output
    assert "note: 4 completions could not be sampled or scored: in no figure" in done.output


def test_without_any_score_there_is_no_diagnosis(config: Callable[..., str]) -> None:
    Path("broken.py").write_text(BROKEN.replace("EVERY", "True"), encoding="utf-8")
    done = call(config(router="single", teachers=[{"model": "m", "scorer": "broken"}]), "-p", "broken.py")
    assert done.exit_code == 1
    assert "failed: no completion could be scored; the first failure: out of order" in done.output
    assert not done.stdout


def test_people_read_the_last_part_of_a_model_and_programs_all_of_it(
    config: Callable[..., str], jsonl: Callable[..., str]
) -> None:
    models = [f"/models/of/somebody/{name}" for name in ("big", "bigger")]
    data = jsonl([question(f"number {i}", teacher=models[i % 2]) for i in range(4)], "paths.jsonl")
    name = config(teachers=[{"model": model, "scorer": "fake"} for model in models], data={"path": data})
    page, as_json = call(name).stdout, call(name, "--json").stdout
    assert "teacher bigger\n" in page
    assert "/models" not in page
    assert list(json.loads(as_json)["routes"]) == models


LIMITED = {"name": "limited", "likes": "abc", "most": 3}


@pytest.fixture
def limited(config: Callable[..., str]) -> Callable[..., str]:
    """A config whose student says entropy and top-K, and whose teachers have these options."""

    def write(*teachers: Any, **over: Any) -> str:
        sections = [
            {"model": "m", "route_value": name, "scorer": each} for name, each in zip("ab", teachers, strict=True)
        ]
        return config(plugins=[str(limited_plugins.__file__)], student="fake", teachers=sections, **over)

    return write


def test_entropy_and_top_k_are_shown_where_both_sides_give_them(limited: Callable[..., str]) -> None:
    found = call(limited(LIMITED, {**LIMITED, "likes": "\x01"}), "--json", "--rows", "6")
    page = json.loads(found.stdout)
    for route, overlap in (
        ("a", 0.0),
        ("b", 1.0),
    ):  # the student's are the first three bytes
        figures = page["routes"][route]
        assert figures["entropy"]["student"] == {"value": pytest.approx(math.log(258), abs=1e-5), "standard_error": 0.0}
        assert figures["topk"]["k"] == 3
        assert figures["topk"]["overlap"] == overlap
    assert 0 < page["routes"]["b"]["topk"]["teacher_mass"] < page["routes"]["a"]["topk"]["teacher_mass"] < 1
    out = call(limited(LIMITED, LIMITED)).stdout
    assert "top-k of both sides" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_the_students_entropy_is_known_of_whatever_it_samples(limited: Callable[..., str]) -> None:
    sampling = {"max_completion_tokens": 16, "temperature": 0.5}
    page = json.loads(call(limited(LIMITED, LIMITED, sampling=sampling), "--json").stdout)
    assert page["overall"]["entropy"]["student"]["value"] == pytest.approx(math.log(258), abs=1e-5)


def test_a_teacher_without_a_top_k_leaves_the_entropy(limited: Callable[..., str]) -> None:
    page = json.loads(call(limited(LIMITED, "quiet"), "--json").stdout)
    assert page["overall"]["topk"] is None
    assert page["overall"]["entropy"]["student"]["value"] == pytest.approx(math.log(258), abs=1e-5)


@pytest.mark.parametrize(
    ("teachers", "student", "wanted"),
    [
        ((LIMITED, {**LIMITED, "most": 5}), "fake", ({"topk": 3, "entropy": 1}, {"topk": 3})),
        (({**LIMITED, "most": 99}, {**LIMITED, "most": 50}), "fake", ({"topk": 20, "entropy": 1}, {"topk": 20})),
        ((LIMITED, "quiet"), "fake", ({"topk": 3, "entropy": 1}, {})),
        ((LIMITED, LIMITED), "quiet", ({}, {"topk": 3})),
        (({**LIMITED, "most": 0}, LIMITED), "fake", ({"topk": 3, "entropy": 1}, {})),
    ],
)
def test_what_is_asked_is_what_all_can_give(
    limited: Callable[..., str], teachers: Any, student: str, wanted: tuple[dict[str, int], dict[str, int]]
) -> None:
    loaded, registry = load_config([Path(limited(*teachers))], [f"student={student}"])
    found = offered(prepare_run(loaded, registry, print))
    assert (dict(found.of_sampler), dict(found.of_scorers)) == wanted
