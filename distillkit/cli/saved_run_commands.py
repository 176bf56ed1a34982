"""The commands `eval`, `generate`, `export` and `push`: what a run left, looked at and taken elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from distillkit.cli.arguments import Quiet, ScriptOptions, Verbose, words_alone
from distillkit.cli.command_start import tells
from distillkit.cli.evaluating import evaluate_and_report, result_file
from distillkit.cli.exporting import export_and_report
from distillkit.cli.generating import generate_and_report
from distillkit.cli.loading import is_file, load, split
from distillkit.cli.pushing import push_and_report
from distillkit.cli.reporting import reporting
from distillkit.config.parse import PARSERS
from distillkit.errors import InputError
from distillkit.publishing.push import Wish
from distillkit.run_directory.held_weights import held_weights
from distillkit.run_directory.saved_run import load_run, noting_where_it_began

EvalArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG|RUN [KEY=VALUE...]",
        callback=words_alone,
        help="Config files, or the directory of a run; and overrides.",
    ),
]
RunArguments = Annotated[
    list[str],
    typer.Argument(metavar="RUN [KEY=VALUE...]", callback=words_alone, help="The directory of a run; and overrides."),
]
Step = Annotated[
    int | None,
    typer.Option("--step", metavar="N", min=0, help="The weights of step N, by default the newest."),
]


def evaluate(
    arguments: EvalArguments,
    step: Step = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Where the result goes: evaluations/step-N.json of the run, NAME-eval-start.json here for a config.",
        ),
    ] = None,
    plugin: ScriptOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate what a run trained, or a config's student.

    Of a config, the student as it starts; of a run, its newest weights or those of a step. Trains nothing.

    distillkit eval config.yaml

    distillkit eval runs/my-run --step 20 data.eval_path=other.jsonl
    """
    with reporting(verbose=verbose) as rank:
        files, overrides = split(arguments)
        run_dir = next((file for file in files if _names_a_run(file)), None)
        if run_dir is not None and len(files) > 1:
            raise InputError("name the directory of one run, such as runs/my-run, or config files")
        if run_dir is None:
            if step:
                raise InputError("--step N goes with the directory of a run, such as runs/my-run")
            config, registry = load(arguments, plugin or [])
            evaluate_and_report(config, registry, rank, None, result_file(config, None, out, of_run=False), quiet=quiet)
            return
        with noting_where_it_began(run_dir):
            config, registry = load_run(run_dir, overrides, plugin or [])
            with held_weights(run_dir, step, tells(quiet=quiet)) as weights:
                file = result_file(config, weights, out, of_run=True)
                evaluate_and_report(config, registry, rank, weights, file, quiet=quiet)


def generate(
    arguments: RunArguments,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", metavar="TEXT", help="What is asked; may be given several times."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Without a question: so many held-out rows.")] = 3,
    step: Step = None,
    full: Annotated[bool, typer.Option("--full", help="Whole completions, not their first lines.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    plugin: ScriptOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show what a run's student writes, before and after.

    The same prompts with the same seeds, by the student as it started and as it is.

    distillkit generate runs/my-run --question "What is 6 * 7?" sampling.temperature=0
    """
    with reporting(verbose=verbose) as rank:
        run_dir, overrides = _run_of(arguments)
        with noting_where_it_began(run_dir):
            config, registry = load_run(run_dir, overrides, plugin or [])
            generate_and_report(
                config,
                registry,
                rank,
                run_dir,
                step,
                question or [],
                rows,
                full=full,
                as_json=as_json,
                quiet=quiet,
            )


def export(
    arguments: RunArguments,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Write what the run exports, of a checkpoint: --step N.")
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option("--merge", metavar="DIR", help="Write a whole model, the LoRA merged into its base."),
    ] = None,
    step: Step = None,
    plugin: ScriptOptions = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's weights as a whole model, or of a step.

    distillkit export runs/my-run --merge my-model

    distillkit export runs/my-run --step 20 --to my-adapter
    """
    with reporting(verbose=verbose) as rank:
        run_dir, overrides = _run_of(arguments)
        folder = merge or to
        if folder is None or (merge and to):
            raise InputError("name where to write: --merge DIR for a whole model, or --to DIR for what the run exports")
        with noting_where_it_began(run_dir):
            config, registry = load_run(run_dir, overrides, plugin or [])
            export_and_report(config, registry, rank, run_dir, folder, step, merged=merge is not None, quiet=quiet)


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository on the Hugging Face hub.")],
    licence: Annotated[
        str | None,
        typer.Option(
            "--license", metavar="ID", help="The licence, as the hub writes it; base: that of the base model."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="ORG/NAME", help="The base model there, where the run has it in a directory."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Only for whom the repository lets.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="BRANCH", help="The branch; made if need be.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="The run's report.html too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files and the card; upload nothing.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Put a run's exported weights on the Hugging Face hub, with a card.

    distillkit push runs/my-run my-org/my-model --license apache-2.0 --dry-run
    """
    with reporting(verbose=verbose):
        push_and_report(Wish(run, repo, licence, base, private, revision, report), dry_run=dry_run, quiet=quiet)


def _names_a_run(file: Path) -> bool:
    """Whether a word is the directory of a run, also one that is not there, and not a config file."""
    return file.is_dir() or not (is_file(str(file)) or file.suffix.lower() in PARSERS)


def _run_of(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The run's directory, and overrides. Raises InputError."""
    files, overrides = split(arguments)
    if len(files) != 1:
        raise InputError("name the directory of one run, such as runs/my-run")
    return files[0], overrides
