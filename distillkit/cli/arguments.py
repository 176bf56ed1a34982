"""Arguments that several commands take."""

from typing import Annotated

import typer

ConfigArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [KEY=VALUE...]", help="Config files, later ones over earlier ones, and overrides."
    ),
]
ScriptOptions = Annotated[
    list[str] | None, typer.Option("-p", "--plugin", metavar="FILE.py", help="A Python file with plugins of your own.")
]


def _also_before(context: typer.Context, option: typer.CallbackParam, value: bool) -> bool:
    """A flag counts before the command too: `distillkit -v run`."""
    return value or bool(context.parent and context.parent.params.get(option.name or ""))


Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", callback=_also_before, help="Debug messages, and tracebacks of failures."),
]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", callback=_also_before, help="No progress and no notes, only results and errors."),
]
