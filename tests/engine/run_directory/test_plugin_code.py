"""Code that numbers come from: a resume says that an installed package is not what it was."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distillkit import Registry, RunConfig, run
from distillkit.run_directory.plugin_code import plugin_code
from distillkit.testing import FakeScorer, FakeStudent

Make = Callable[..., RunConfig]
PLUGINS = """
from distillkit import hookimpl
from theirs.weighting import Halves

@hookimpl
def distillkit_weightings():
    return [Halves]
"""
WEIGHTING = """
from typing import ClassVar

from distillkit import Weighting
from theirs.formula import weights

class Halves(Weighting):
    name: ClassVar[str] = "halves"

    def weigh(self, step):
        return [weights(len(each.rollout.token_ids)) for each in step]
"""
FORMULA = """
import numpy as np

def weights(length):
    return np.full(length, 0.5, np.float32)
"""


@pytest.fixture
def formula(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of an installed package, which the one with the plugin imports."""
    site = tmp_path / "site"
    files = {
        "theirs/__init__.py": "",
        "theirs/plugins.py": PLUGINS,
        "theirs/weighting.py": WEIGHTING,
        "theirs/formula.py": FORMULA,
        "their_plugins-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: their-plugins\nVersion: 1.0\n",
        "their_plugins-1.0.dist-info/entry_points.txt": "[distillkit]\ntheirs = theirs.plugins\n",
    }
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    yield site / "theirs" / "formula.py"
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def registry() -> Registry:
    found = Registry.discover()
    for cls in (FakeStudent, FakeScorer):
        found.add(cls)
    return found


def test_a_resume_says_that_an_installed_package_has_other_code_under_its_version(
    fake_config: Make, formula: Path
) -> None:
    def config(steps: int) -> RunConfig:
        values = fake_config(train={"max_steps": steps}).dump()
        return RunConfig(registry=registry(), **{**values, "train": {**values["train"], "weightings": ["halves"]}})

    def go_on(steps: int) -> int:
        return run(config(steps), plugins=[FakeStudent, FakeScorer], resume=True).steps

    log = run(config(1), plugins=[FakeStudent, FakeScorer]).run_dir / "run.log"
    assert go_on(2) == 2
    assert "other code" not in log.read_text()
    formula.write_text(FORMULA.replace("0.5", "0.25"))
    assert go_on(3) == 3
    assert "their-plugins is not what it was when" in log.read_text()


def test_built_in_plugins_and_classes_from_code_have_no_code_of_their_own() -> None:
    found = registry()
    assert not list(plugin_code(found, [FakeStudent(), found.build("loss", "importance_sampling")]))
