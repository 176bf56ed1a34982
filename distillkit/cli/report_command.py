"""`distillkit report`: what runs left as one HTML file, for people to look at."""

from pathlib import Path
from typing import Annotated

import typer

from distillkit.cli.arguments import Quiet, Verbose
from distillkit.cli.reporting import OUT, reporting
from distillkit.report.report_page import write_report

RunDirectories = Annotated[
    list[Path], typer.Argument(metavar="RUN [RUN ...]", help="The directory of a run, or those of several.")
]


def report(
    runs: RunDirectories,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="Where to write; by default report.html in the run, here for several."
        ),
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write what a run left as one HTML file: verdict, curves, results, losses, settings, completions.

    distillkit report runs/my-run

    distillkit report runs/first runs/second -o both.html
    """
    with reporting(verbose=verbose):
        file = write_report(*runs, out=out)
        OUT.print(str(file) if quiet else f"report: {file} ({max(1, file.stat().st_size // 1000):,} kB)")
