"""`run` and `arun`: one run from config to result. A library call raises; it never exits or prints by itself."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillkit.config.load import load_config
from distillkit.config.run_config import RunConfig
from distillkit.loop.blocking import run_blocking
from distillkit.loop.execute import execute
from distillkit.ranks import Rank
from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin
from distillkit.run_directory.result import RunResult
from distillkit.run_directory.run_start import RunStart

log = logging.getLogger("distillkit")
ConfigLike = RunConfig | Mapping[str, Any] | str | Path


def run(
    config: ConfigLike,
    *,
    plugins: Sequence[type[Plugin] | str | Path] = (),
    resume: bool = False,
    from_step: int | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> RunResult:
    """Run `config` to its end. Works in a notebook too, where an event loop is running already.

    An interrupt (Ctrl-C, a notebook's stop button) ends it, with what it opened closed: unlike `distillkit run` it does
    not finish the step in hand, but saves the one before. `resume=True` goes on from the newest checkpoint.

    Args:
        config: a `RunConfig`, a mapping as in a config file, or the path of one.
        plugins: plugin classes to choose from by name besides the installed ones, and Python files with some.
        resume: go on from the newest checkpoint in the run's directory.
        from_step: with `resume`, go on from the checkpoint of this step instead, and forget what came after.
        overwrite: replace the run that the directory holds.
        force: with `resume`, go on although data, settings, tokenizers or models are not those of the checkpoint.

    Raises:
        DistillkitError: `InputError` before anything is loaded if the input is wrong; another child if the run fails.
        KeyboardInterrupt: if it was interrupted.
    """
    start = RunStart(resume, from_step, overwrite, force)
    return run_blocking(_resolved(config, plugins, start))


async def arun(
    config: ConfigLike,
    *,
    plugins: Sequence[type[Plugin] | str | Path] = (),
    resume: bool = False,
    from_step: int | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> RunResult:
    """`run` for code that is asynchronous itself; cancelling it is the interrupt."""
    return await _resolved(config, plugins, RunStart(resume, from_step, overwrite, force))


async def _resolved(config: ConfigLike, plugins: Sequence[type[Plugin] | str | Path], start: RunStart) -> RunResult:
    resolved, registry = resolve(config, plugins)
    return await execute(resolved, registry, start, Rank.from_environment())


def resolve(config: ConfigLike, plugins: Sequence[type[Plugin] | str | Path] = ()) -> tuple[RunConfig, Registry]:
    """A `RunConfig` and the registry that its names come from. Raises ConfigError."""
    registry = Registry.discover()
    scripts = [str(plugin) for plugin in plugins if isinstance(plugin, str | Path)]
    for plugin in plugins:
        if not isinstance(plugin, str | Path):
            registry.add(plugin)
    if isinstance(config, RunConfig):
        config = config.model_copy(update={"plugins": tuple(dict.fromkeys([*config.plugins, *scripts]))})
        for script in config.plugins:
            registry.add_script(Path(script))
        return config, registry
    if isinstance(config, str | Path):
        return load_config([Path(config)], scripts=scripts, registry=registry)
    return load_config([], scripts=scripts, extra=config, registry=registry)
