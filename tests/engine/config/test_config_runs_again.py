"""What a config is written as runs again, and what could not is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import question

import distillkit
from distillkit import Registry, Router, RunConfig
from distillkit.config.load import load_config
from distillkit.testing import FakeScorer, FakeStudent
from distillkit_builtin.routers import FieldRouter

Make = Callable[..., RunConfig]


def test_python_takes_instances_and_refuses_one_scorer_for_two_teachers(registry: Registry) -> None:
    one: dict[str, Any] = {"data": "a", "student": FakeStudent(), "router": FieldRouter(route_key="k")}
    config = RunConfig(teachers=[{"model": "m", "scorer": FakeScorer()}], **one)
    assert config.router == FieldRouter(route_key="k")
    shared = FakeScorer()
    with pytest.raises(Exception, match="cannot serve two teachers"):
        RunConfig(teachers=[{"model": "m", "scorer": shared}, {"model": "n", "scorer": shared}], **one)


def test_the_dump_is_complete_and_reads_back_the_same(fake_config: Make, registry: Registry) -> None:
    config = fake_config(loss={"name": "importance_sampling", "scale": 2.0}, sampling={"temperature": 0.5})
    dump = config.dump()
    assert dump["loss"] == {
        "name": "importance_sampling",
        "scale": 2.0,
        "ratio_log_cap": 20.0,
        "advantage_clip": None,
        "ratio_gate": None,
        "extrapolate": None,
        "anchor": None,
        "control": None,
        "control_advantage": -0.1,
    }
    assert RunConfig(registry=registry, **dump).dump() == dump


FAKES = str(Path(__file__).parents[2] / "helpers" / "fake_plugins.py")


def test_instances_that_no_config_could_name_are_found(jsonl: Callable[..., str]) -> None:
    class Nameless(FieldRouter):
        """Without a name of its own."""

    registry = Registry.discover()
    registry.add_script(Path(FAKES))
    values = {
        "data": jsonl([question("x")]),
        "student": FakeStudent(sampler=FakeStudent()),
        "teachers": [{"model": "m", "scorer": "fake"}],
        "router": Nameless(),
    }
    config = RunConfig(registry=registry, plugins=[FAKES], **values)
    assert config.unreproducible(registry) == ["student.sampler", "router"]  # the fake can be chosen as student only
    unnamed = RunConfig(registry=registry, **values)
    assert unnamed.unreproducible(registry) == ["student", "student.sampler", "teachers.0.scorer", "router"]


def test_classes_that_were_added_in_python_are_marked(fake_config: Make, registry: Registry) -> None:
    assert fake_config().unreproducible(registry) == ["student", "teachers.0.scorer"]
    result = distillkit.run(fake_config(), plugins=[FakeStudent, FakeScorer])
    assert "# NOT RE-RUNNABLE: student was" in (result.run_dir / "config.yaml").read_text()


@pytest.mark.parametrize("plugins", [(), (FAKES,)])
def test_a_config_whose_plugins_a_script_defines_runs_again(
    fake_config: Make, tmp_path: Path, plugins: tuple[str, ...]
) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "from distillkit_builtin.routers import SingleRouter\nclass R(SingleRouter):\n    '''R.'''\n    name = 'r'\n",
        encoding="utf-8",
    )
    values = {**fake_config().dump(), "plugins": [FAKES, str(script)], "router": "r"}
    config, _ = load_config([], extra=values)
    result = distillkit.run(config, plugins=plugins)
    assert "NOT RE-RUNNABLE" not in (result.run_dir / "config.yaml").read_text()
    assert distillkit.run(result.run_dir / "config.yaml", overwrite=True).steps == result.steps


def test_plugins_inside_plugins_are_looked_at(registry: Registry, fake_config: Make) -> None:
    class Wrapping(FieldRouter):
        """Holds others."""

        inner: Router
        more: tuple[Router, ...] = ()

    class Nameless(FieldRouter):
        """Without a name of its own."""

    router = Wrapping(inner=FieldRouter(), more=(FieldRouter(), Nameless()))
    keys = fake_config(router=router).unreproducible(registry)
    assert [key for key in keys if key.startswith("router")] == ["router", "router.more.1"]
