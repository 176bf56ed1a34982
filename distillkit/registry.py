"""Finding plugins (pluggy and entry points) and looking them up by role and name."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

import importlib_metadata
import pluggy
from pydantic import ValidationError

from distillkit import hookspecs
from distillkit.config.option_problems import PluginOptionsError, option_problems
from distillkit.config.script_modules import complete_classes, import_script, incomplete_classes, what_it_lacks
from distillkit.errors import (
    ConfigError,
    DistillkitError,
    InputError,
    PluginError,
    PluginNotFoundError,
    error_text,
    suggest,
)
from distillkit.roles.by_name import ROLES
from distillkit.roles.plugin import Plugin

ENTRY_POINT_GROUP = "distillkit"
HOOK_OF_ROLE: Mapping[str, str] = {role: f"distillkit_{'losse' if role == 'loss' else role}s" for role in ROLES}
SERVERS = frozenset({"vllm", "sglang", "openai"})
"""Servers of models whose names are looked for among scorers, and found among samplers at most."""


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin that can be chosen by name."""

    role: str
    name: str
    cls: type[Plugin]
    distribution: str
    """The distribution that brought it, or the script or code that added it."""
    version: str
    origin: Path | None = None
    """The script that brought it; None: a distribution, or code."""
    from_code: bool = False
    """Whether Python code added it, so that no config file can choose it."""


@dataclass(frozen=True, slots=True)
class BrokenEntryPoint:
    """An entry point that could not be loaded; it hides no other."""

    entry_point: str
    """`distribution:entry-point`."""
    error: str


@dataclass(frozen=True, slots=True)
class IncompletePlugin:
    """A class of a script that has a name and a role, and cannot be chosen."""

    role: str
    name: str
    cls: str
    """Its module and name."""
    lacks: str
    """Which methods of its role it does not implement."""


class Registry:
    """The plugins that a run can choose from. An object, not a global: runs with different plugins do not mix."""

    def __init__(self) -> None:
        """An empty registry; `Registry.discover()` is the one with everything that is installed."""
        self._manager = pluggy.PluginManager("distillkit")
        self._manager.add_hookspecs(hookspecs)
        self._plugins: dict[tuple[str, str], PluginInfo] = {}
        self._scripts: set[Path] = set()
        self.incomplete: list[IncompletePlugin] = []
        self.broken: list[BrokenEntryPoint] = []

    @classmethod
    def discover(cls) -> Self:
        """Every plugin of every installed distribution."""
        registry = cls()
        for entry_point in importlib_metadata.entry_points(group=ENTRY_POINT_GROUP):
            registry._load_entry_point(entry_point)
        return registry

    def _load_entry_point(self, entry_point: importlib_metadata.EntryPoint) -> None:
        distribution = entry_point.dist
        name = distribution.name if distribution else "unknown"
        key = f"{name}:{entry_point.name}"
        try:
            self._register(entry_point.load(), key, name, distribution.version if distribution else "unknown")
        except Exception as error:  # noqa: BLE001 - a stranger's package may fail in any way; it is kept and named
            self.broken.append(BrokenEntryPoint(key, _reason(error)))

    def _register(self, module: object, key: str, distribution: str, version: str, script: Path | None = None) -> None:
        before, incomplete = dict(self._plugins), list(self.incomplete)
        self._manager.register(module, key)
        try:
            self._manager.check_pending()  # a hook of ours, misspelt
            for role, hook in HOOK_OF_ROLE.items():
                for cls in self._classes_of(hook, key):
                    mine = _require_role(cls, role, key)
                    self._add(PluginInfo(role, mine.name, mine, distribution, version, script))
            for cls in incomplete_classes(module) if script else ():
                self.incomplete.append(IncompletePlugin(cls.role, cls.name, _path(cls), what_it_lacks(cls)))
            for mine in complete_classes(module) if script else ():
                self._add(PluginInfo(mine.role, mine.name, mine, distribution, version, script))
        except Exception:
            self._plugins, self.incomplete = before, incomplete
            self._manager.unregister(name=key)
            raise

    def _classes_of(self, hook: str, key: str) -> Iterable[object]:
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == key:
                yield from implementation.function()

    def add(self, cls: type[Plugin], source: str = "added in Python") -> type[Plugin]:
        """Make one class known by its name, in its role. Usable as a decorator."""
        if not (inspect.isclass(cls) and issubclass(cls, Plugin)):
            raise PluginError(f"{cls!r} is not a plugin class; subclass one of {', '.join(ROLES)}")
        _require_role(cls, cls.role, source)
        self._add(PluginInfo(cls.role, cls.name, cls, source, "", from_code=True))
        return cls

    def add_script(self, path: Path) -> None:
        """Load a Python file, once: its hooks count, and so does every complete role subclass that it defines.

        Raises:
            InputError: whatever is wrong with it, since the file is the user's.
        """
        script = path.resolve()
        if script in self._scripts:
            return
        module = import_script(path)
        try:
            self._register(module, f"script:{script}", str(path), "", script)
        except pluggy.PluginValidationError as error:
            hooks = ", ".join(HOOK_OF_ROLE.values())
            raise InputError(f"plugin script {path}: {str(error).rstrip('.')}. The hooks are {hooks}") from error
        except Exception as error:
            raise InputError(f"plugin script {path}: {_reason(error)}") from error
        self._scripts.add(script)

    def _add(self, info: PluginInfo) -> None:
        known = self._plugins.setdefault((info.role, info.name), info)
        if known.cls is not info.cls:
            raise PluginError(
                f"two {info.role} plugins are named {info.name!r}: {_path(known.cls)} of {known.distribution} and "
                f"{_path(info.cls)} of {info.distribution}. Rename one, or uninstall its distribution."
            )

    def infos(self, role: str | None = None) -> list[PluginInfo]:
        """All plugins (of one role), sorted by role in the order of the design, then by name."""
        order = list(ROLES)
        chosen = [info for info in self._plugins.values() if role in (None, info.role)]
        return sorted(chosen, key=lambda info: (order.index(info.role), info.name))

    def names(self, role: str) -> list[str]:
        """The names that a config can choose from for a role."""
        return [info.name for info in self.infos(role)]

    def find(self, role: str, name: str) -> type[Plugin]:
        """The class of that role and name. Raises PluginNotFoundError with the names that there are."""
        if role not in ROLES:
            raise PluginNotFoundError(f"there is no role {role!r}; {suggest(role, list(ROLES))}")
        info = self._plugins.get((role, name))
        if info is not None:
            return info.cls
        broken = "".join(f"\n  {b.entry_point} could not be loaded: {b.error}" for b in self.broken)
        hint = f"\nIt may be in a package that is broken:{broken}" if broken else ""
        of_that_name = (each for each in self.incomplete if (each.role, each.name) == (role, name))
        hint += "".join(f"\n{each.cls} has that name, and {each.lacks}" for each in of_that_name)
        hint = hint or " (one of your own: -p FILE.py, or `plugins: [FILE.py]` in the config)"
        served = "; a teacher that it serves is `http`" if role == "scorer" and name.casefold() in SERVERS else ""
        raise PluginNotFoundError(f"no {role} is named {name!r}{served}; {suggest(name, self.names(role))}{hint}")

    def build(self, role: str, choice: object) -> Plugin:
        """The plugin that a config's entry describes: a name, or a mapping with `name` and options."""
        if isinstance(choice, str):
            choice = {"name": choice}
        if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
            known = ", ".join(self.names(role))
            raise ConfigError(f"wants the name of a {role} ({known}) or a mapping with a `name` and options")
        cls = self.find(role, cast(str, choice["name"]))
        options = {key: value for key, value in choice.items() if key != "name"}
        try:
            return cls.model_validate(options, context={"registry": self})
        except ValidationError as error:
            raise PluginOptionsError(option_problems(error, cls)) from error

    def knows(self, role: str, plugin: Plugin, scripts: Iterable[str] = ()) -> bool:
        """Whether a config file with `scripts` under `plugins` can choose the plugin's class by its name for `role`."""
        info = self._plugins.get((role, plugin.name))
        if info is None or info.cls is not type(plugin) or info.from_code:
            return False
        return info.origin is None or info.origin in {Path(script).resolve() for script in scripts}

    def script_of(self, plugin: Plugin) -> Path | None:
        """The script that the plugin's class stands in; None: a distribution brought it, or code."""
        return next((info.origin for info in self._plugins.values() if info.cls is type(plugin)), None)


def _require_role(cls: object, role: str, source: str) -> type[Plugin]:
    if not (inspect.isclass(cls) and issubclass(cls, ROLES[role])):
        raise PluginError(f"{source}: {cls!r} is no subclass of {ROLES[role].__name__}")
    if cls.role != role:
        raise PluginError(f"{source}: {_path(cls)} is given as a {role}, and its `role` says {cls.role!r}")
    if inspect.isabstract(cls):
        raise PluginError(f"{source}: {_path(cls)} {what_it_lacks(cls)}")
    if not cls.name:
        raise PluginError(f"{source}: {_path(cls)} has no `name`; add `name: ClassVar[str] = ...`")
    return cls


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, DistillkitError) else error_text(error)
