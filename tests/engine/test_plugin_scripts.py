"""Plugins in a script: found once, and what is wrong with it is named."""

import re
from pathlib import Path

import pytest

from distillkit import Registry
from distillkit.errors import InputError, PluginNotFoundError
from distillkit_builtin.routers import FieldRouter
from engine.plugin_modules import FirstRouter

SCRIPT = '''
from typing import ClassVar
from distillkit import Sink, hookimpl
from distillkit_builtin.routers import FieldRouter

class Mine(FieldRouter):
    """Mine."""
    name: ClassVar[str] = "mine"

class Quiet(Sink):
    """Says nothing."""
    name: ClassVar[str] = "quiet"
    def emit(self, event): pass

class Unfinished(Sink):
    """No emit."""
    name: ClassVar[str] = "unfinished"

@hookimpl
def distillkit_sinks():
    return [Quiet]
'''


def test_a_script_adds_its_hooks_and_every_complete_class(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT, encoding="utf-8")
    registry = Registry.discover()
    registry.add_script(script)
    assert registry.find("router", "mine").describe() == "Mine."
    assert registry.find("sink", "quiet")
    assert "unfinished" not in registry.names("sink")
    source = next(info.distribution for info in registry.infos("router") if info.name == "mine")
    assert source == str(script)


def test_scripts_that_fail_say_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.py is not there"):
        Registry().add_script(tmp_path / "nothing.py")
    script = tmp_path / "fails.py"
    for code, error in (("1 / 0\n", "ZeroDivisionError"), ("raise SystemExit(3)\n", "SystemExit: 3")):
        script.write_text(code, encoding="utf-8")
        for _ in range(2):
            with pytest.raises(InputError, match=rf"fails\.py failed to load: {error}"):
                Registry().add_script(script)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (SCRIPT.replace('"mine"', '"single"'), "two router plugins are named 'single': "),
        (SCRIPT.replace("def distillkit_sinks", "def distillkit_sink"), "unknown hook 'distillkit_sink'"),
        (SCRIPT.replace("[Quiet]", "[Mine]"), "is no subclass of Sink"),
        (SCRIPT.replace("return [Quiet]", "1 / 0"), "ZeroDivisionError"),
    ],
)
def test_what_is_wrong_with_a_script_is_the_users_to_mend(tmp_path: Path, code: str, message: str) -> None:
    script = tmp_path / "mine.py"
    script.write_text(code, encoding="utf-8")
    registry = Registry.discover()
    before = registry.infos()
    with pytest.raises(InputError, match=message) as caught:
        registry.add_script(script)
    assert f"plugin script {script}: " in str(caught.value)
    assert registry.infos() == before


def test_a_script_is_loaded_once_however_its_path_is_spelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    registry = Registry.discover()
    for path in (Path("mine.py"), Path("./mine.py"), tmp_path / "mine.py", Path("..") / tmp_path.name / "mine.py"):
        registry.add_script(path)
    assert registry.names("router").count("mine") == 1


def test_two_scripts_of_one_name_are_two(tmp_path: Path) -> None:
    registry = Registry.discover()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(SCRIPT.replace('"mine"', f'"{name}"').replace("quiet", name))
        registry.add_script(tmp_path / name / "mine.py")
    assert {"a", "b"} <= set(registry.names("router"))


def test_a_script_has_the_same_classes_in_every_registry_until_it_changes(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT, encoding="utf-8")
    first, second, third = Registry.discover(), Registry.discover(), Registry.discover()
    first.add_script(script)
    second.add_script(script)
    assert first.find("router", "mine") is second.find("router", "mine")
    script.write_text(SCRIPT.replace("Mine.", "Changed."), encoding="utf-8")
    third.add_script(script)
    assert third.find("router", "mine").describe() == "Changed."


def test_a_config_file_can_choose_what_is_installed_or_in_a_script_that_it_names(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT, encoding="utf-8")
    registry = Registry.discover()
    registry.add(FirstRouter)
    registry.add(FieldRouter)
    registry.add_script(script)
    assert registry.knows("router", FieldRouter())
    assert not registry.knows("router", FirstRouter())
    mine = registry.build("router", "mine")
    assert not registry.knows("router", mine)
    assert registry.knows("router", mine, [str(script)])
    assert not Registry.discover().knows("router", mine, [str(script)])


def test_a_script_with_a_class_of_two_roles_says_so(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text("from distillkit import Sampler, Student\nclass Both(Sampler, Student):\n    '''Both.'''\n")
    with pytest.raises(InputError, match=r"both\.py failed to load: PluginError: .*Both is a Sampler and a Student"):
        Registry().add_script(script)


def test_a_name_that_an_incomplete_class_of_a_file_has_is_said_with_what_it_lacks(tmp_path: Path) -> None:
    script = tmp_path / "half.py"
    script.write_text("from distillkit import Router\n\n\nclass Half(Router):\n    name = 'half'\n")
    registry = Registry()
    with pytest.raises(PluginNotFoundError, match=r"-p FILE\.py, or `plugins: \[FILE\.py\]` in the config"):
        registry.find("router", "half")
    registry.add_script(script)
    with pytest.raises(PluginNotFoundError, match=r"half_\w+\.Half has that name, and does not implement route$"):
        registry.find("router", "half")


def test_a_method_that_is_misspelt_is_named(tmp_path: Path) -> None:
    script = tmp_path / "half.py"
    script.write_text(
        "from distillkit import Evaluator, Router\n\n\nclass Half(Router):\n    name = 'half'\n"
        "    def rout(self, *_): ...\n"
        "\n\nclass Other(Evaluator):\n    name = 'half'\n\n    def measure(self, *_): ...\n"
    )
    registry = Registry()
    registry.add_script(script)
    lacks = {(each.role, each.cls.rpartition(".")[2]): each.lacks for each in registry.incomplete}
    assert lacks == {
        ("router", "Half"): "does not implement route (it has rout: misspelt?)",
        ("evaluator", "Other"): "does not implement evaluate",
    }
    with pytest.raises(PluginNotFoundError, match=r"has that name, and does not implement route \(it has rout: miss"):
        registry.find("router", "half")


def test_a_file_that_fails_leaves_no_incomplete_class_behind(tmp_path: Path) -> None:
    script = tmp_path / "half.py"
    script.write_text(
        "from distillkit import Router\n\n\nclass Half(Router):\n    name = 'half'\n\n\nclass Single(Router):\n"
        "    name = 'single'\n\n    def route(self, *_): ...\n"
    )
    registry = Registry.discover()
    with pytest.raises(InputError, match="two router plugins are named 'single'"):
        registry.add_script(script)
    assert registry.incomplete == []


def test_a_file_that_is_not_there_is_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(f"half.py is not there (looked for at {tmp_path / 'half.py'})")):
        Registry().add_script(Path("half.py"))
