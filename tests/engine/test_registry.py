import re
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import importlib_metadata
import pytest
from pydantic import Field

from distillkit import Registry, Router, Sampler, Scorer, Sink, Student, hookimpl
from distillkit.config.option_problems import PluginOptionsError
from distillkit.errors import ConfigError, InputError, PluginError, PluginNotFoundError
from distillkit.roles.plugin import Plugin
from distillkit.testing import FakeScorer, FakeStudent, make_row, make_teacher
from distillkit.types import Route, Row, Teacher
from distillkit_builtin.routers import FieldRouter


class FirstRouter(Router):
    """Always the first."""

    name: ClassVar[str] = "first"

    offset: int = Field(0, ge=0, description="Which is the first.")

    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        return Route.to(teachers[self.offset].name)


class OtherFirst(FirstRouter):
    """Another class of the same name."""


def module_with(**members: object) -> ModuleType:
    module = ModuleType("strangers_plugins")
    for name, member in members.items():
        setattr(module, name, member)
    return module


def test_the_built_in_plugins_are_found_through_their_entry_point() -> None:
    infos = {(info.role, info.name): info for info in Registry.discover().infos()}
    assert {"field", "single"} <= {name for role, name in infos if role == "router"}
    assert infos["student", "local"].distribution == "distillkit"
    assert not Registry.discover().broken


def test_an_unknown_name_lists_the_known_ones_and_the_closest() -> None:
    with pytest.raises(PluginNotFoundError, match=r"no router is named 'feild'; did you mean 'field'\? Known: all"):
        Registry.discover().find("router", "feild")
    with pytest.raises(PluginNotFoundError, match=r"there is no role 'routers'; did you mean 'router'"):
        Registry.discover().find("routers", "field")


def test_a_plugin_is_found_without_its_role_where_one_has_the_name() -> None:
    registry = Registry.discover()
    assert registry.role_of("divergence") == "loss"
    with pytest.raises(PluginNotFoundError, match="'local' is a student and a scorer: write the role before it"):
        registry.role_of("local")
    with pytest.raises(PluginNotFoundError, match="no plugin is named 'divergenc'; did you mean 'divergence'"):
        registry.role_of("divergenc")


def test_two_plugins_of_one_name_are_an_error_that_names_both() -> None:
    registry = Registry()
    registry.add(FirstRouter, "package-a")
    registry.add(FirstRouter, "package-a")
    with pytest.raises(PluginError) as caught:
        registry.add(OtherFirst, "package-b")
    for part in ("FirstRouter of package-a", "OtherFirst of package-b", "'first'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Router, "does not implement route"),
        (int, "is not a plugin class"),
        (type("NoName", (FirstRouter,), {"name": ""}), "has no `name`"),
    ],
)
def test_incomplete_classes_are_refused(cls: type, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Registry().add(cls)


def test_a_misspelt_hook_is_caught() -> None:
    registry = Registry()

    @hookimpl
    def distillkit_router() -> list[type[Router]]:
        return [FirstRouter]

    with pytest.raises(Exception, match="distillkit_router"):
        registry._register(module_with(distillkit_router=distillkit_router), "dist:entry", "dist", "1")
    assert not registry.infos()


def test_a_hook_that_returns_the_wrong_role_is_named() -> None:
    @hookimpl
    def distillkit_sinks() -> list[type]:
        return [FirstRouter]

    with pytest.raises(PluginError, match=r"dist:entry: .* is no subclass of Sink"):
        Registry()._register(module_with(distillkit_sinks=distillkit_sinks), "dist:entry", "dist", "1")


def test_a_broken_entry_point_hides_no_other_and_is_named_when_it_might_matter() -> None:
    registry = Registry.discover()
    broken = importlib_metadata.EntryPoint("gone", "no_such_module_anywhere", "distillkit")
    registry._load_entry_point(broken)
    assert registry.find("router", "field") is FieldRouter
    (one,) = registry.broken
    assert one.entry_point == "unknown:gone"
    assert "no_such_module_anywhere" in one.error
    with pytest.raises(PluginNotFoundError, match="unknown:gone could not be loaded: ModuleNotFoundError"):
        registry.find("router", "gone")


def test_options_are_checked_by_the_class() -> None:
    registry = Registry()
    registry.add(FirstRouter)
    assert registry.build("router", {"name": "first", "offset": 1}) == FirstRouter(offset=1)
    with pytest.raises(PluginOptionsError, match="ofset: unknown key; did you mean 'offset'"):
        registry.build("router", {"name": "first", "ofset": 1})
    with pytest.raises(ConfigError, match="wants the name of a router"):
        registry.build("router", {"offset": 1})
    with pytest.raises(ConfigError, match="wants the name of a router"):
        registry.build("router", 5)


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


def test_registries_do_not_share_what_was_added() -> None:
    Registry.discover().add(FirstRouter)
    assert "first" not in Registry.discover().names("router")


def test_a_subclass_of_a_built_in_routes() -> None:
    assert FirstRouter(offset=1).route(make_row(), [make_teacher("a"), make_teacher("b")]).teachers == ("b",)


async def _nothing(self: Plugin, *args: object) -> None:
    return None


def class_of(*bases: type[Plugin], **body: object) -> type[Plugin]:
    """A class with these bases and this body, complete but for what it does."""
    return type("Mine", bases, {"__module__": __name__, "__doc__": "Mine.", "name": "mine", **body})


@pytest.mark.parametrize("roles", list(permutations([Student, Sampler, Scorer, Sink], 2)))
def test_a_class_of_two_roles_says_which_one_it_is_chosen_for(roles: tuple[type[Plugin], ...]) -> None:
    first, second = roles
    with pytest.raises(PluginError, match=rf"Mine is a {first.__name__} and a {second.__name__}; set the one"):
        class_of(first, second)
    for role in roles:
        mine = class_of(first, second, role=role.role)
        assert mine.role == role.role
        assert class_of(mine).role == role.role


def test_what_a_base_says_does_not_count_for_a_role_that_it_does_not_have() -> None:
    both = class_of(Student, Sampler, role="student")
    with pytest.raises(PluginError, match="Mine is a Student and a Sampler and a Scorer; set the one"):
        class_of(both, Scorer)
    assert class_of(both, Scorer, role="scorer").role == "scorer"
    with pytest.raises(PluginError, match="Mine is a Student and a Sampler, and its `role` is 'sink'"):
        class_of(Student, Sampler, role="sink")


def test_a_class_of_two_roles_is_not_taken_for_a_role_in_a_config() -> None:
    mine = class_of(FakeScorer, Sampler, role="scorer", sample=FakeStudent.sample, sync=_nothing)
    registry = Registry()
    registry.add(mine)
    assert registry.names("scorer") == ["mine"]
    assert registry.names("sampler") == []
    assert isinstance(registry.build("scorer", {"name": "mine", "likes": "a"}), mine)


def test_a_hook_of_another_role_than_the_one_that_a_class_says_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(
        "from distillkit import hookimpl\nfrom distillkit.testing import FakeStudent\n"
        "@hookimpl\ndef distillkit_samplers():\n    return [FakeStudent]\n"
    )
    with pytest.raises(InputError, match="FakeStudent is given as a sampler, and its `role` says 'student'"):
        Registry().add_script(script)


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
