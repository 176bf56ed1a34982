"""The `distillkit` command. Exit codes: 0 done, 2 wrong input, 1 the run failed, 130 interrupted."""

import asyncio
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from distillkit.api import RunResult, execute
from distillkit.cli import plugin_pages, scaffold, schema
from distillkit.cli.check_page import show_preflight
from distillkit.config import RunConfig
from distillkit.errors import DistillkitError, InputError
from distillkit.loading import load_config
from distillkit.preflight import inspect_run
from distillkit.registry import Registry
from distillkit.run_files import run_directory

HELP = """On-policy distillation of language models.

A student samples completions, a frozen teacher scores exactly those tokens, and the gap
`teacher_logprob - sampling_logprob` trains the student. One config file says everything:

    distillkit init                    write a config and sample data to start from

    distillkit check config.yaml       what a run would do and take, without loading weights

    distillkit run config.yaml train.max_steps=5

    distillkit demo                    see it work on a real model, on a CPU, in a few minutes
"""
app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
plugins_app = typer.Typer(help="The plugins that a config can choose by name.", no_args_is_help=True)
config_app = typer.Typer(help="About config files.", no_args_is_help=True)
app.add_typer(plugins_app, name="plugins")
app.add_typer(config_app, name="config")

ERR = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
OUT = Console(soft_wrap=True, highlight=False, markup=False)

ConfigArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [KEY=VALUE...]", help="Config files, later ones over earlier ones, and overrides."
    ),
]
ScriptOptions = Annotated[
    list[str] | None, typer.Option("-p", "--plugin", metavar="FILE.py", help="A Python file with plugins of your own.")
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Debug messages, and tracebacks of failures.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        OUT.print(f"distillkit {version('distillkit')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def run(
    arguments: ConfigArguments,
    plugin: ScriptOptions = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
    verbose: Verbose = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No progress; only the run directory and the result.")
    ] = False,
) -> None:
    """Train a student as a config says.

    distillkit run config.yaml train.max_steps=5 sampling.temperature=0.8
    """
    with reporting(verbose=verbose):
        config, registry = load(arguments, plugin or [])
        if quiet:
            config = config.model_copy(update={"sinks": tuple(s for s in config.sinks if s.name != "console")})
        run_and_report(config, registry, arguments, resume=resume, overwrite=overwrite)


@app.command()
def check(arguments: ConfigArguments, plugin: ScriptOptions = None, verbose: Verbose = False) -> None:
    """Find out what a run would do and take, and whether anything is wrong; loads no weights, writes nothing."""
    with reporting(verbose=verbose):
        config, registry = load(arguments, plugin or [])
        notes: list[str] = []
        show_preflight(inspect_run(config, registry, notes.append), notes, OUT)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where to write; made if need be.")] = Path(),
    teachers: Annotated[int, typer.Option(min=1, max=2, help="One teacher for all rows, or two with routed rows.")] = 1,
) -> None:
    """Write a commented config and sample data to start from."""
    with reporting():
        for path in scaffold.write(directory, teachers):
            OUT.print(f"wrote {path}")
        OUT.print(
            f"next: cd {directory} && distillkit check config.yaml"
            if directory != Path()
            else "next: distillkit check config.yaml"
        )


@app.command()
def demo(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Overrides of its config.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Distil two teachers into a 135 M student on this machine, and show what changed."""
    from distillkit.cli.demo import run_demo  # a file that only this command reads

    with reporting(verbose=verbose):
        run_demo(overrides or [], OUT)


@plugins_app.command("list")
def plugins_list(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False, plugin: ScriptOptions = None
) -> None:
    """All plugins by role, and the entry points that could not be loaded."""
    with reporting():
        registry = _registry(plugin or [])
        OUT.print(plugin_pages.as_json(registry)) if as_json else plugin_pages.show_list(registry, OUT)


@plugins_app.command("show")
def plugins_show(role: str, name: str, plugin: ScriptOptions = None) -> None:
    """One plugin's options, each with its type, default and meaning."""
    with reporting():
        plugin_pages.show_one(_registry(plugin or []), role, name, OUT)


@config_app.command("schema")
def config_schema(plugin: ScriptOptions = None) -> None:
    """The JSON schema of config files, for editors to complete and check them.

    distillkit config schema > distillkit.schema.json
    and as the first line of config.yaml: # yaml-language-server: $schema=distillkit.schema.json
    """
    with reporting():
        OUT.print(schema.as_json(_registry(plugin or [])))


def load(arguments: list[str], scripts: list[str], **extra: object) -> tuple[RunConfig, Registry]:
    """Split files from overrides, and load them. Raises InputError."""
    files = [Path(argument) for argument in arguments if "=" not in argument or Path(argument).is_file()]
    overrides = [argument for argument in arguments if Path(argument) not in files]
    if not files:
        raise InputError("name a config file; `distillkit init` writes one to start from")
    return load_config(files, overrides, scripts=scripts, extra=extra)


def run_and_report(
    config: RunConfig, registry: Registry, arguments: list[str], *, resume: bool = False, overwrite: bool = False
) -> RunResult:
    """Run, with the run directory as the first line and what to do next as the last."""
    run_dir = run_directory(config)
    OUT.print(f"run directory: {run_dir}")
    try:
        result = asyncio.run(execute(config, registry, resume=resume, overwrite=overwrite))
    except InputError:
        raise
    except (Exception, KeyboardInterrupt):
        _point_to_log(run_dir, arguments)
        raise
    summary = result.summary
    OUT.print(
        f"done: {result.steps} steps, {summary['trained_completions']} completions trained, "
        f"{summary['failed_completions']} failed, {float(str(summary['wall_s'])):.0f} s"
    )
    OUT.print(f"{result.adapter_path.name}: {result.adapter_path} (its README.md shows how to load it)")
    return result


def _point_to_log(run_dir: Path, arguments: list[str]) -> None:
    if (run_dir / "run.log").is_file():
        ERR.print(f"log: {run_dir / 'run.log'}")
    if any((run_dir / "checkpoints").glob("step-*")):
        ERR.print(f"go on with: distillkit run {' '.join(arguments)} --resume")


def _registry(scripts: list[str]) -> Registry:
    registry = Registry.discover()
    for script in scripts:
        registry.add_script(Path(script))
    return registry


@contextmanager
def reporting(*, verbose: bool = False) -> Iterator[None]:
    """Turn errors into a message and an exit code."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch)\.")
    if verbose:
        handler = logging.StreamHandler(sys.stderr)
        logging.getLogger("distillkit").addHandler(handler)
        logging.getLogger("distillkit").setLevel(logging.DEBUG)
    try:
        yield
    except InputError as error:
        ERR.print(f"error: {error}")
        raise typer.Exit(2) from error
    except DistillkitError as error:
        ERR.print(f"failed: {error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        ERR.print("interrupted")
        raise typer.Exit(130) from error
    except typer.Exit:
        raise
    except Exception as error:
        if verbose:
            ERR.print_exception()
        ERR.print(f"failed: {type(error).__name__}: {error}\nThe log has the traceback; -v shows it here.")
        raise typer.Exit(1) from error


def main() -> None:
    """The console script."""
    app()
