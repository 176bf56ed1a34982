"""`distillkit view`: the runs of a folder in a browser, live while they train."""

import webbrowser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from distillkit.cli.arguments import Quiet, Verbose
from distillkit.cli.reporting import OUT, reporting
from distillkit.errors import InputError, MissingExtraError

NEEDED = ("starlette", "uvicorn")


def view(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder with the runs, or a run.")] = Path("runs"),
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="On this machine; 0 takes a free one.")
    ] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Only print the address; open no browser.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Show the reports of a folder's runs in a browser, live while they train. Ctrl-C ends it.

    Only this machine can reach it, and only by the address that is printed.

    distillkit view

    distillkit view runs/my-run --no-open
    """
    with reporting(verbose=verbose):
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            raise MissingExtraError(f"`view` needs {' and '.join(missing)}: pip install 'distillkit[view]'")
        if not folder.is_dir():
            raise InputError(f"{folder}: no such directory; name the folder with the runs, such as runs")
        pages, server = import_module("distillkit.view.pages"), import_module("distillkit.view.serve")

        def ready(address: str) -> None:
            OUT.print(address if quiet else f"{address}\nshows the runs of {folder}; Ctrl-C ends it")
            if not no_open:
                webbrowser.open(address)

        server.serve(pages.Pages(folder), port, ready)
