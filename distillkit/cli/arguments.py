"""Arguments that several commands take."""

from typing import Annotated, Any

import typer

from distillkit.cli.loading import require_no_options
from distillkit.cli.reporting import ERR
from distillkit.errors import InputError

ANY_WORDS: dict[str, Any] = {"ignore_unknown_options": True}
"""The context settings of a command with `key=value` words: what is no option of its own comes to `words_alone`."""


def words_alone(context: typer.Context, words: list[str] | None) -> list[str] | None:
    """Words that are no options; names of other tools' are answered with our key."""
    try:
        require_no_options(
            words or [], [option for each in context.command.params for option in each.opts if option.startswith("--")]
        )
    except InputError as error:
        ERR.say(f"error: {error}")
        raise typer.Exit(2) from error
    return words


ConfigArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG... [KEY=VALUE...]",
        callback=words_alone,
        help="Config files, later ones over earlier ones, and overrides.",
    ),
]
OverrideArguments = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", callback=words_alone, help="Overrides of its config.")
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
