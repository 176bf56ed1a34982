"""The `distillkit` command. Exit codes: 0 done, 2 wrong input, 1 the run failed, 130 interrupted."""

import asyncio
import sys
from contextlib import suppress
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from distillkit.cli.arguments import ANY_WORDS, ConfigArguments, OverrideArguments, Quiet, ScriptOptions, Verbose
from distillkit.cli.checking import check_and_report
from distillkit.cli.demo import run_demo
from distillkit.cli.diagnosing import diagnose_and_report
from distillkit.cli.initializing import init_and_report
from distillkit.cli.loading import load
from distillkit.cli.plugin_commands import config_app, plugins_app
from distillkit.cli.report_command import report
from distillkit.cli.reporting import OUT, reporting
from distillkit.cli.running import run_and_report
from distillkit.cli.saved_run_commands import evaluate, export, generate, push
from distillkit.cli.viewing import view
from distillkit.errors import RunFailedError
from distillkit.loop.execute import execute
from distillkit.run_directory.run_start import RunStart

HELP = """On-policy distillation of language models.

A student samples completions, a frozen teacher scores exactly those tokens, and the gap
`teacher_logprob - sampling_logprob` trains the student. One config file says everything:

    distillkit init                    write a config and sample data to start from

    distillkit check config.yaml       what a run would do and take, without loading weights

    distillkit check config.yaml --probe   the same, and a few rows for real

    distillkit diagnose config.yaml    whether this teacher can teach this student, without training

    distillkit run config.yaml train.max_steps=5

    distillkit report runs/my-run      what a run left, as a page to look at

    distillkit view                    the pages of all runs, live while they train

    distillkit eval runs/my-run        evaluate what a run trained

    distillkit generate runs/my-run    what it writes, before and after

    distillkit export runs/my-run --merge my-model   as a whole model

    distillkit push runs/my-run my-org/my-model --license apache-2.0   on the Hugging Face hub

    distillkit demo                    see it work on a real model, on a CPU, in a few minutes
"""
app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
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


@app.command(context_settings=ANY_WORDS)
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


@app.command(context_settings=ANY_WORDS)
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


@app.command(context_settings=ANY_WORDS)
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


app.command()(report)
app.command()(view)
app.command("eval", context_settings=ANY_WORDS)(evaluate)
app.command(context_settings=ANY_WORDS)(generate)
app.command(context_settings=ANY_WORDS)(export)
app.command()(push)


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Where to write; made if need be.")] = Path(),
    teachers: Annotated[
        int | None, typer.Option(min=1, max=2, help="One teacher for all rows (the default), or two with routed rows.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DATA", help="Rows that you have: a file, a folder, a glob, hf://org/name#split."
        ),
    ] = None,
    example: Annotated[
        str | None, typer.Option(metavar="NAME", help="Copy an example, such as routed_mopd, in their place.")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a commented config and sample data to start from; with --from, a config that reads your data.

    distillkit init my-run --from questions.parquet
    """
    with reporting(verbose=verbose):
        init_and_report(directory, teachers, data, example, quiet=quiet)


@app.command(context_settings=ANY_WORDS)
def demo(
    overrides: OverrideArguments = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Distil two teachers into a 135 M student on this machine, and show what changed."""
    with reporting(verbose=verbose) as rank:
        run_demo(overrides or [], OUT, rank, quiet=quiet)


def main() -> None:
    """The console script. What standard output cannot encode (`LC_ALL=de_DE.ISO-8859-1`) is written as an escape.

    A run that is done would else end in an error, with its verdict unsaid. Standard error does so by itself.
    """
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
