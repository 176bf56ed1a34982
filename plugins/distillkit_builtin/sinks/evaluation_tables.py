"""An evaluation for people: before -> now by route, and a completion a route, cut at a few lines."""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from distillkit import EvalResult, Evaluated, Measure, ScoredRollout, Teacher, route_order, route_shown

ALL = ""
"""Stands for all rows among labels of routes."""
LABEL_WIDTH, CELL_WIDTH = 32, 16
QUESTION_LINES, ANSWER_LINES = 2, 4
STAGES: Mapping[str, str] = {"before": "before training", "during": "after step {}", "after": "after training ({})"}


def title(event: Evaluated) -> str:
    """When the held-out rows were evaluated."""
    steps = event.step if event.stage == "during" else f"{event.step} step{'' if event.step == 1 else 's'}"
    compared = ", before -> now" if event.before else ""
    return f"held-out prompts {STAGES[event.stage].format(steps)}{compared}"


def evaluation_tables(event: Evaluated, teachers: Sequence[Teacher], width: int) -> Group:
    """A row a measure, a column a route; where these are too many for the width, tables below each other."""
    labels = route_order({route for result in event.results.values() for route in result.routes}, teachers)
    columns = [*labels, ALL] if len(labels) != 1 else labels
    at_once = max(1, (width - LABEL_WIDTH) // CELL_WIDTH)
    parts = [columns[start : start + at_once] for start in range(0, len(columns), at_once)]
    return Group(*(_table(event, part, teachers, alone=len(columns) == 1) for part in parts))


def _table(event: Evaluated, labels: Sequence[str], teachers: Sequence[Teacher], *, alone: bool) -> Table:
    table = Table("", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for label in labels:
        table.add_column(Text("all" if label == ALL else route_shown(label, teachers)), justify="right")
    for name, measure in event.measures.items():
        cells = [_cell(event, label, name, measure, alone=alone) for label in labels]
        if any(cells):
            table.add_row(Text(measure.label), *cells)
    return table


def _cell(event: Evaluated, label: str, name: str, measure: Measure, *, alone: bool) -> str:
    """`before -> now`; empty where it was not measured, and of a count that is 0."""
    now, before = (_value(results, label, name, alone=alone) for results in (event.results, event.before))
    if now is None or (measure.unit == "count" and not now and not before):
        return ""
    if before is None or (before == now and not any(name in result.by_row for result in event.results.values())):
        return measure.text(now)  # what is measured once, such as a teacher's own rate
    return measure.both(before, now)


def _value(results: Mapping[str, EvalResult], label: str, name: str, *, alone: bool) -> float | None:
    """A metric of a route. Where there is one route, all rows are its own: what is not separated is there as well."""
    for result in results.values():
        of_route = {} if label == ALL else result.routes.get(label, {})
        values = {**result.metrics, **of_route} if alone or label == ALL else of_route
        if name in values:
            return values[name]
    return None


def examples(event: Evaluated, teachers: Sequence[Teacher], console: Console) -> Iterator[Text]:
    """The first completion of each route behind its question, both cut at a few lines."""
    shown: set[str] = set()
    for scored in event.examples:
        label = scored.prompts.route.label
        if label not in shown:
            shown.add(label)
            yield from _example(scored, route_shown(label, teachers), console)


def _example(scored: ScoredRollout, route: str, console: Console) -> Iterator[Text]:
    question = scored.prompts.row.messages[-1].content
    yield Text(route, "dim") + Text(" > ") + few_lines(question, QUESTION_LINES, console, indent=len(route) + 3)
    answer = few_lines(scored.rollout.text.strip(), ANSWER_LINES, console, indent=2)
    yield Text("  ") + Text(answer.plain.replace("\n", "\n  "), "cyan")


def few_lines(text: str, most: int, console: Console, indent: int) -> Text:
    """The first lines of a text as wide as the terminal, and how much more there is; no control characters."""
    plain = "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)
    lines = [line.plain.rstrip() for line in Text(plain).wrap(console, max(20, console.width - indent))]
    if len(lines) <= most:
        return Text("\n".join(lines))
    rest = len(plain) - sum(len(line) + 1 for line in lines[:most])
    return Text("\n".join([*lines[:most], f"... {rest:,} more characters"]))
