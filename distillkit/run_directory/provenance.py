"""Where a run's numbers come from besides its config: versions, devices, sizes, scripts; how it was started, and when.

The command stands as it was typed, but for secrets and for where the program lies: paths in it may be whole, and name
folders of the machine and its user. Nothing else names the host. What `Plugin.provenance` gives is what was resolved,
where the config says `auto`.
"""

import hashlib
import json
import logging
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import JsonValue

from distillkit.files.redaction import redact
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.roles.attribution import attribute_to
from distillkit.roles.sink import Sink

log = logging.getLogger("distillkit")


@dataclass(slots=True)
class Provenance:
    """What `summary.json` has under `provenance`."""

    prepared: PreparedRun
    started: datetime
    """With its zone."""
    resumed_after: int | None = None
    """The step of the checkpoint that this process went on from; None: it began with the first."""
    plugins: dict[str, dict[str, JsonValue]] = field(default_factory=dict, init=False)
    """What each plugin was resolved to, by its key in the config; nothing before they are open."""
    scripts: dict[str, str] = field(init=False)
    """Scripts that plugins come from, by name, with the hash of what stood in them when the run began."""

    def __post_init__(self) -> None:
        """Read the scripts now: who edits one, or removes it, while the run goes on changes nothing of the run."""
        self.scripts = dict(self._scripts())

    def opened(self) -> None:
        """Ask all plugins, which are open now, what they were resolved to."""
        for key, plugin in self.prepared.plugins.by_key.items():
            facts: dict[str, JsonValue] = {}
            if not isinstance(plugin, Sink):  # whose errors must not end a run
                with attribute_to(plugin, "in provenance()"):
                    facts = json.loads(redact(json.dumps(dict(plugin.provenance()), allow_nan=False)))
            self.plugins[key] = {"name": plugin.name, **facts}
            if facts:
                log.info("%s: %s", key, _shown(facts))

    def log_beginning(self) -> None:
        """The first line of a run in `run.log`."""
        config, how = self.prepared.config, "begins" if self.resumed_after is None else "goes on"
        log.info("run %r %s, by %s: %s", config.name, how, command_line(), _shown(dict(self._versions())))

    def to_json(self, ended: datetime | None = None) -> dict[str, JsonValue]:
        """As JSON; `ended` is when the run ended, None while it goes on."""
        return {
            "command": command_line(),
            "started": self.started.isoformat(timespec="seconds"),
            "ended": None if ended is None else ended.isoformat(timespec="seconds"),
            "resumed_after": self.resumed_after,
            "processes": self.prepared.rank.count,
            "versions": dict(self._versions()),
            "scripts": {**self.scripts},
            "plugins": {key: dict(found) for key, found in self.plugins.items()},
        }

    def _versions(self) -> Iterator[tuple[str, str]]:
        """Python's and distillkit's, and those of the distributions that plugins compute with or come from."""
        yield "python", platform.python_version()
        plugins = self.prepared.plugins.by_key.values()
        names = {name for plugin in plugins for name in plugin.libraries}
        names |= {info.distribution for info in self.prepared.registry.infos() if info.cls in set(map(type, plugins))}
        for name in ("distillkit", *sorted(names - {"distillkit"})):
            try:
                yield name, version(name)
            except PackageNotFoundError:  # a script, or code
                continue

    def _scripts(self) -> Iterator[tuple[str, str]]:
        for plugin in self.prepared.plugins.by_key.values():
            script = self.prepared.registry.script_of(plugin)
            if script is not None:
                yield script.name, f"sha256:{_digest(script)}"


def command_line() -> str:
    """How this process was started, as a shell takes it: as typed, but for secrets and where the program lies."""
    program = Path(sys.argv[0])
    name = f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name
    return redact(" ".join([name, *(shlex.quote(word) for word in sys.argv[1:])]).strip())


def _shown(facts: Mapping[str, JsonValue]) -> str:
    """Facts on one line, as `run.log` has them."""
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, "", [], {}))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
