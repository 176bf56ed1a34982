"""Two completions of each question: side by side on a wide terminal, one below the other on a narrow one."""

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from distillkit.data.counted import counted
from distillkit.files.printable import printable
from distillkit.files.redaction import redact
from distillkit.probe.before_and_after import BeforeAndAfter
from distillkit.records import Rollout

WIDE = 100
"""Columns from which both completions stand side by side."""
QUESTION_LINES, COMPLETION_LINES = 4, 8
INDENT, GAP = 2, 2


def show_before_and_after(found: Sequence[BeforeAndAfter], step: int, console: Console, *, full: bool = False) -> None:
    """Print every question with both completions, cut after a few lines unless `full`."""
    after = f"after step {step}"
    for each in found:
        console.rule(Text(printable(each.question.place)), align="left")
        console.print(_cut(each.question.text, console.width, QUESTION_LINES, console, full=full), soft_wrap=False)
        if console.width >= WIDE:
            width = (console.width - GAP) // 2
            table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
            for _ in range(2):
                table.add_column(width=width)
            sides = [_side(title, rollout, width, console, full=full) for title, rollout in _titled(each, after)]
            table.add_row(*sides)
            console.print(table)
        else:
            width = console.width - INDENT
            for title, rollout in _titled(each, after):
                console.print(_side(title, rollout, width, console, full=full))
        console.print()


def _titled(each: BeforeAndAfter, after: str) -> list[tuple[str, Rollout | None]]:
    return [("before", each.before), (after, each.after)]


def _side(title: str, rollout: Rollout | None, width: int, console: Console, *, full: bool) -> Group:
    """A completion below its title, which says how long it is and whether it ended."""
    if rollout is None:
        return Group(Text(f"{title}: could not be sampled", style="bold"))
    ended = "ended" if rollout.finish_reason == "stop" else "cut at the limit"
    head = Text.assemble((title, "bold"), f" ({counted(len(rollout.token_ids), 'token')}, {ended})")
    text = _cut(rollout.text.strip(), width - INDENT, COMPLETION_LINES, console, full=full)
    text.stylize("cyan")
    return Group(head, *(Text(" " * INDENT).append_text(line) for line in text.split("\n", allow_blank=True)))


def _cut(text: str, width: int, lines: int, console: Console, *, full: bool) -> Text:
    """The first lines of a text as they fit into `width` columns, and how many follow."""
    wrapped = Text(printable(redact(text), keep="\n")).wrap(console, width)
    if full or len(wrapped) <= lines + 1:  # a line that says that one more follows would take its place
        return Text("\n").join(wrapped)
    return Text("\n").join([*wrapped[:lines], Text(f"... {len(wrapped) - lines} more lines (--full)", style="dim")])
