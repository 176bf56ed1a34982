"""The `distillkit` command. Exit codes: 0 done, 2 wrong input, 1 the run failed, 130 interrupted."""

import asyncio
import shlex
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from distillkit.cli import plugin_pages, scaffold, schema
from distillkit.cli.arguments import ConfigArguments, Quiet, ScriptOptions, Verbose
from distillkit.cli.checking import check_and_report
from distillkit.cli.demo import run_demo
from distillkit.cli.diagnosing import diagnose_and_report
from distillkit.cli.reporting import OUT, reporting
from distillkit.cli.running import run_and_report
from distillkit.config.load import load_config
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError, RunFailedError
from distillkit.loop.execute import execute
from distillkit.registry import Registry
from distillkit.run_directory.run_start import RunStart

HELP = """On-policy distillation of language models.

A student samples completions, a frozen teacher scores exactly those tokens, and the gap
`teacher_logprob - sampling_logprob` trains the student. One config file says everything:

    distillkit init                    write a config and sample data to start from

    distillkit check config.yaml       what a run would do and take, without loading weights

    distillkit check config.yaml --probe   the same, and a few rows for real

    distillkit diagnose config.yaml    whether this teacher can teach this student, without training

    distillkit run config.yaml train.max_steps=5

    distillkit demo                    see it work on a real model, on a CPU, in a few minutes
"""
app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
plugins_app = typer.Typer(help="The plugins that a config can choose by name.", no_args_is_help=True)
config_app = typer.Typer(help="About config files.", no_args_is_help=True)
app.add_typer(plugins_app, name="plugins")
app.add_typer(config_app, name="config")


def _show_version(wanted: bool) -> None:
    if wanted:
        OUT.print(f"distillkit {version('distillkit')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Options before the command."""


def _flags(verbose: Verbose = False, quiet: Quiet = False) -> None:
    """Options before a command of a group."""


plugins_app.callback()(_flags)
config_app.callback()(_flags)


@app.command()
def run(
    arguments: ConfigArguments,
    plugin: ScriptOptions = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    from_step: Annotated[
        int | None,
        typer.Option(
            "--from-step", metavar="N", help="With --resume: from the checkpoint of step N; forget what came after."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --resume: go on although data or settings are not the checkpoint's.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train a student as a config says.

    distillkit run config.yaml train.max_steps=5 sampling.temperature=0.8
    """
    scripts = plugin or []
    flags = [flag for flag, given in (("-v", verbose), ("-q", quiet)) if given]
    words = [*arguments, *(word for script in scripts for word in ("-p", script)), *flags]
    with reporting(verbose=verbose) as rank:
        start = RunStart(resume, from_step, overwrite, force)
        config, registry = load(arguments, scripts)
        if not rank.runs_engine:
            with suppress(RunFailedError):  # rank 0 says so, and its exit code is what torchrun should report
                asyncio.run(execute(config, registry, rank=rank))
            return
        run_and_report(config, registry, words, rank, start, quiet=quiet)


@app.command()
def check(
    arguments: ConfigArguments,
    plugin: ScriptOptions = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Load everything, sample and score a few rows for real, and say whether they can be trusted.",
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="CARD",
            help="Plan the memory for a card, such as h100-80gb or one of 24gb, which need not be here.",
        ),
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find out what a run would do and take, and whether anything is wrong; loads no weights, writes nothing.

    With --probe it loads them, and measures: what the run does from its first step on is done on a few rows.
    """
    with reporting(verbose=verbose) as rank:
        config, registry = load(arguments, plugin or [])
        check_and_report(config, registry, rank, probe=probe, quiet=quiet, device=device)


@app.command()
def diagnose(
    arguments: ConfigArguments,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of the training data, one completion each.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="All figures, for programs.")] = False,
    plugin: ScriptOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find out whether this teacher can teach this student: samples and scores some rows, trains nothing.

    distillkit diagnose config.yaml --rows 64
    """
    with reporting(verbose=verbose) as rank:
        config, registry = load(arguments, plugin or [])
        diagnose_and_report(config, registry, rank, rows, json=as_json, quiet=quiet)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where to write; made if need be.")] = Path(),
    teachers: Annotated[int, typer.Option(min=1, max=2, help="One teacher for all rows, or two with routed rows.")] = 1,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a commented config and sample data to start from."""
    with reporting(verbose=verbose):
        written = scaffold.write(directory, teachers)
        if not quiet:
            for path in written:
                OUT.print(f"wrote {path}")
            change = "" if directory == Path() else f"cd {shlex.quote(str(directory))} && "
            OUT.print(f"next: {change}distillkit check config.yaml")


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Overrides of its config.")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Distil two teachers into a 135 M student on this machine, and show what changed."""
    with reporting(verbose=verbose) as rank:
        run_demo(overrides or [], OUT, rank, quiet=quiet)


@plugins_app.command("list")
def plugins_list(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    plugin: ScriptOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """All plugins by role, and the entry points that could not be loaded."""
    with reporting(verbose=verbose):
        registry = _registry(plugin or [])
        OUT.print(plugin_pages.as_json(registry)) if as_json else plugin_pages.show_list(registry, OUT)


@plugins_app.command("show")
def plugins_show(
    role: str, name: str, plugin: ScriptOptions = None, verbose: Verbose = False, quiet: Quiet = False
) -> None:
    """One plugin's options, each with its type, default and meaning."""
    with reporting(verbose=verbose):
        plugin_pages.show_one(_registry(plugin or []), role, name, OUT)


@config_app.command("schema")
def config_schema(plugin: ScriptOptions = None, verbose: Verbose = False, quiet: Quiet = False) -> None:
    """The JSON schema of config files, for editors to complete and check them.

    distillkit config schema > distillkit.schema.json
    and as the first line of config.yaml: # yaml-language-server: $schema=distillkit.schema.json
    """
    with reporting(verbose=verbose):
        OUT.print(schema.as_json(_registry(plugin or [])))


def load(arguments: list[str], scripts: list[str], **extra: object) -> tuple[RunConfig, Registry]:
    """Split files from overrides, and load them. Raises InputError."""
    files = [Path(argument) for argument in arguments if "=" not in argument or _is_file(argument)]
    overrides = [argument for argument in arguments if Path(argument) not in files]
    if not files:
        raise InputError("name a config file; `distillkit init` writes one to start from")
    return load_config(files, overrides, scripts=scripts, extra=extra)


def _is_file(argument: str) -> bool:
    """Not so for an override that is too long for a file's name."""
    try:
        return Path(argument).is_file()
    except OSError:
        return False


def _registry(scripts: list[str]) -> Registry:
    registry = Registry.discover()
    for script in scripts:
        registry.add_script(Path(script))
    return registry


def main() -> None:
    """The console script."""
    app()
