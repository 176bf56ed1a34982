"""What was set, and what differs; no secret, and nothing of the run is executed."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from helpers.html_outline import outline
from helpers.written_runs import write_run
from pydantic import JsonValue

from distillkit import Registry, RunConfig
from distillkit.report.chosen_settings import chosen_settings, differing_settings
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html


def test_it_is_what_the_user_set_and_the_plugins(fake_config: Callable[..., RunConfig], registry: Registry) -> None:
    config = fake_config(train={"max_steps": 3}, prices={"sample_per_million_tokens": 2.0})
    assert chosen_settings(config.dump(), registry) == {
        "name": "fake",
        "log_path": config.log_path,
        "data.path": config.data.path,
        "student.name": "fake",
        "student.learning_rate": 30.0,
        "teachers.0.model": "t",
        "teachers.0.scorer.name": "fake",
        "teachers.0.scorer.likes": "abc",
        "router.name": "single",
        "prompts.name": "messages",
        "sampling.completions_per_prompt": 2,
        "sampling.max_completion_tokens": 12,
        "loss.name": "importance_sampling",
        "train.prompt_groups_per_step": 2,
        "train.max_steps": 3,
        "prices.sample_per_million_tokens": 2.0,
    }


def test_of_a_plugin_that_is_not_installed_all_options_are_there(registry: Registry) -> None:
    config = {"student": {"name": "gone", "a": 1, "b": {"c": None}}, "unknown": 2}
    expected = {"student.name": "gone", "student.a": 1, "student.b.c": None, "unknown": 2}
    assert chosen_settings(config, registry) == expected


def test_a_script_that_the_run_names_is_not_run(tmp_path: Path) -> None:
    script = tmp_path / "evil.py"
    script.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    html = report_html([read_run(write_run(tmp_path / "run", config={"plugins": [str(script)]}))])
    assert script.name in html
    assert not (tmp_path / "ran").exists()


def test_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-0123456789")
    scorer = {"name": "mine", "base_url": "https://user:pass@host/v1", "api_key": "abc", "note": "is sk-0123456789"}
    scorer |= {"route_key": "shown", "headers": ["sk-0123456789"]}
    runs = [write_run(tmp_path / name, config={"student": {**scorer, "x": name}}) for name in ("a", "b")]
    for html in (report_html([read_run(runs[0])]), report_html([read_run(run) for run in runs])):
        assert "sk-0123456789" not in html
        assert "user:pass" not in html
        assert ">abc<" not in html
    assert "shown" in report_html([read_run(runs[0])])


def test_of_several_runs_only_what_differs_is_shown(tmp_path: Path) -> None:
    trains: list[tuple[str, dict[str, JsonValue]]] = [("a", {"x": 1}), ("b", {})]
    configs: list[Mapping[str, JsonValue]] = [
        {"name": name, "log_path": name, "seed": 0, "train": train} for name, train in trains
    ]
    assert differing_settings(configs) == {"train.x": [1, None], "train": [None, {}]}
    students = [{"lora_rank": rank} for rank in (8, 16)]
    runs = [write_run(tmp_path / f"r{place}", config={"student": each}) for place, each in enumerate(students)]
    page = outline(report_html([read_run(run) for run in runs]))
    (table,) = (e for e in page.all("section") if e.attributes["id"] == "settings")
    assert "student.lora_rank" in table.text
    assert "seed" not in table.text
