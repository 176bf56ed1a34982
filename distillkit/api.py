"""`run`, `arun` and `check`: what a config does, from Python. A library call raises; it never exits."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distillkit.config.load import load_config
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.events import Notice
from distillkit.loop.blocking import run_blocking
from distillkit.loop.execute import execute
from distillkit.preflight.check_result import CheckResult
from distillkit.preflight.prepared_run import prepare_run
from distillkit.probe.without_run import probed
from distillkit.ranks import Rank
from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin
from distillkit.run_directory.directory import holds_run, require_writable_path, run_directory
from distillkit.run_directory.result import RunResult
from distillkit.run_directory.run_start import RunStart

log = logging.getLogger("distillkit")
ConfigLike = RunConfig | Mapping[str, Any] | str | Path


def run(
    config: ConfigLike,
    *,
    overrides: Mapping[str, object] | None = None,
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
        overrides: single keys over it, as on the command line: `{"train.max_steps": 5}`; no mapping for a section.
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
    return run_blocking(_resolved(config, overrides, plugins, start))


async def arun(
    config: ConfigLike,
    *,
    overrides: Mapping[str, object] | None = None,
    plugins: Sequence[type[Plugin] | str | Path] = (),
    resume: bool = False,
    from_step: int | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> RunResult:
    """`run` for code that is asynchronous itself; cancelling it is the interrupt."""
    return await _resolved(config, overrides, plugins, RunStart(resume, from_step, overwrite, force))


async def _resolved(
    config: ConfigLike,
    overrides: Mapping[str, object] | None,
    plugins: Sequence[type[Plugin] | str | Path],
    start: RunStart,
) -> RunResult:
    resolved, registry = resolve(config, plugins, overrides)
    return await execute(resolved, registry, start, Rank.from_environment())


def check(
    config: ConfigLike,
    *,
    overrides: Mapping[str, object] | None = None,
    plugins: Sequence[type[Plugin] | str | Path] = (),
    probe: bool = False,
) -> CheckResult:
    """Find out what a run would do and take, and whether anything is wrong; loads no weights, writes nothing.

    It reads every row, asks tokenizers and servers, as `distillkit check` does. With `probe` it also loads everything,
    samples and scores a few rows for real, and says in `probe` whether they can be trusted, as `check --probe` does;
    what it finds wrong is no exception, and `ok` is False.

    Args:
        config: as for `run`.
        overrides: as for `run`.
        plugins: as for `run`.
        probe: measure a few rows too; not done where a package is missing.

    Raises:
        InputError: naming everything that is wrong at the first stage where something is.
        RunFailedError: if no row of the probe could be sampled.
    """
    resolved, registry = resolve(config, plugins, overrides)
    run_dir, rank = run_directory(resolved), Rank.from_environment()
    require_writable_path(run_dir)
    if probe and rank.count > 1:
        raise InputError("probe: from Python in one process; in several by torchrun -m distillkit check --probe")
    notices: list[Notice] = []
    prepared = prepare_run(resolved, registry, notices.append, rank)
    report = run_blocking(probed(prepared, notices.append)) if probe and not prepared.missing else None
    return CheckResult.of(prepared, run_dir, holds_run=holds_run(run_dir), notices=tuple(notices), probe=report)


def resolve(
    config: ConfigLike,
    plugins: Sequence[type[Plugin] | str | Path] = (),
    overrides: Mapping[str, object] | None = None,
) -> tuple[RunConfig, Registry]:
    """A `RunConfig` and the registry that its names come from. Raises ConfigError."""
    if overrides is not None and not isinstance(overrides, Mapping):
        raise InputError(
            f"overrides: is a {type(overrides).__name__}; in Python it is a mapping, such as "
            'overrides={"train.max_steps": 5}'
        )
    registry = Registry.discover()
    scripts = [str(plugin) for plugin in plugins if isinstance(plugin, str | Path)]
    for plugin in plugins:
        if not isinstance(plugin, str | Path):
            registry.add(plugin)
    if isinstance(config, str | Path):
        return load_config([Path(config)], scripts=scripts, values=overrides, registry=registry)
    if isinstance(config, RunConfig) and overrides:
        config = {name: getattr(config, name) for name in config.model_fields_set}
    if isinstance(config, RunConfig):
        config = config.model_copy(update={"plugins": tuple(dict.fromkeys([*config.plugins, *scripts]))})
        for script in config.plugins:
            registry.add_script(Path(script))
        return config, registry
    return load_config([], scripts=scripts, extra=config, values=overrides, registry=registry)
