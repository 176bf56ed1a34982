"""Plugins are found by name: what is installed, what hooks give, and what is said of those that cannot be chosen."""

from itertools import permutations
from pathlib import Path

import importlib_metadata
import pytest

from distillkit import Registry, Router, Sampler, Scorer, Sink, Student, hookimpl
from distillkit.config.option_problems import PluginOptionsError
from distillkit.errors import ConfigError, InputError, PluginError, PluginNotFoundError
from distillkit.roles.plugin import Plugin
from distillkit.testing import FakeScorer, FakeStudent, make_row, make_teacher
from distillkit_builtin.routers import FieldRouter
from engine.plugin_modules import FirstRouter, module_with


class OtherFirst(FirstRouter):
    """Another class of the same name."""


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
