"""What the recipe's `main` takes from the environment, and what its runner writes."""

from pathlib import Path

import pytest

from builtin.fireworks.recipe.recipe_configs import make
from distillkit.errors import InputError
from distillkit.recipes import distillation_loop as recipe
from distillkit_builtin.fireworks.recipe import environment
from distillkit_builtin.fireworks.recipe.runner_files import RunnerFiles


def test_wrong_input_is_in_the_runners_status_file(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    with pytest.raises(InputError), pytest.warns(DeprecationWarning, match="cancel_on_exit"):
        recipe.main(make(epochs=0, runner=recipe.RunnerConfig(str(status))), cleanup_on_exit=True)
    assert '"code": 3' in status.read_text()
    assert "epochs" in status.read_text()


def test_the_runners_files_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOKBOOK_STATUS_FILE", "theirs")
    monkeypatch.setenv("COOKBOOK_METRICS_FILE", "metrics")
    files = RunnerFiles.of(recipe.RunnerConfig("mine"))
    assert (files.status_path, files.metrics_path, files.metadata_path) == ("mine", "metrics", None)


@pytest.mark.parametrize(
    ("variables", "teacher_model", "models", "route_key"),
    [
        ({}, "", None, None),
        ({"DISTILLATION_TEACHER_MODEL": "m"}, "m", None, None),
        ({"DISTILLATION_TEACHERS": "a, b,"}, "", ["a", "b"], "teacher"),
        ({"DISTILLATION_TEACHERS": "a", "DISTILLATION_TEACHER_ROUTE_KEY": "who"}, "", ["a"], "who"),
        ({"OPD_TEACHERS": "a", "OPD_TEACHER_ROUTE_KEY": "old"}, "", ["a"], "old"),
        ({"DISTILLATION_TEACHERS": "a", "OPD_TEACHERS": "b"}, "", ["a"], "teacher"),
        (
            {"OPD_TEACHERS": "a", "DISTILLATION_TEACHER_ROUTE_KEY": "new", "OPD_TEACHER_ROUTE_KEY": "old"},
            "",
            ["a"],
            "new",
        ),
        ({"DISTILLATION_TEACHERS": " ", "OPD_TEACHERS": "b"}, "", ["b"], "teacher"),
    ],
)
def test_the_environment_names_the_teachers(
    variables: dict[str, str], teacher_model: str, models: list[str] | None, route_key: str | None
) -> None:
    cfg = environment.config_from_environment(variables)
    assert cfg.teacher_model == teacher_model
    found = cfg.multi_teacher
    assert (found and [teacher.model for teacher in found.teachers]) == models
    assert (found and found.route_key) == route_key
    assert cfg.log_path == "./distillation_logs"
    assert cfg.dataset == recipe.Config("x").dataset
