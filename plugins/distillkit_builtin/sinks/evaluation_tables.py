"""An evaluation for people: before -> now by route, and a completion a route, cut at a few lines."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from distillkit import EvalResult, Evaluated, Measure, ScoredRollout, Teacher, route_order, route_shown

ALL = ""
"""Stands for all rows among labels of routes."""
GAP = 3
"""Characters between two columns."""
QUESTION_LINES, ANSWER_LINES = 2, 4
STAGES: Mapping[str, str] = {"before": "before training", "during": "after step {}", "after": "after training ({})"}


def title(event: Evaluated) -> str:
    """When the held-out rows were evaluated."""
    steps = event.step if event.stage == "during" else f"{event.step} step{'' if event.step == 1 else 's'}"
    compared = ", before -> now" if event.before else ""
    return f"held-out prompts {STAGES[event.stage].format(steps)}{compared}"


@dataclass(frozen=True, slots=True)
class Column:
    """A route of a table, or all rows."""

    head: str
    cells: tuple[str, ...]
    """One a measure."""

    @property
    def width(self) -> int:
        """In characters."""
        return max(cell_len(text) for text in (self.head, *self.cells))


def evaluation_tables(event: Evaluated, teachers: Sequence[Teacher], width: int) -> Group:
    """A row a measure, a column a route; as many columns beside each other as fit the width whole."""
    labels = route_order({route for result in event.results.values() for route in result.routes}, teachers)
    routes = [*labels, ALL] if len(labels) != 1 else labels
    columns = [_column(event, label, teachers, alone=len(routes) == 1) for label in routes]
    measures = [measure.label for measure in event.measures.values()]
    left = max(map(cell_len, measures), default=0)
    return Group(*(_table(measures, part) for part in _beside_each_other(columns, width - left)))


def _beside_each_other(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """The columns in groups of no more than `width` characters; one that is wider stands alone."""
    groups: list[list[Column]] = []
    for column in columns:
        taken = sum(each.width + GAP for each in groups[-1]) if groups else width
        if not groups or taken + column.width + GAP > width:
            groups.append([])
        groups[-1].append(column)
    return groups


def _column(event: Evaluated, label: str, teachers: Sequence[Teacher], *, alone: bool) -> Column:
    cells = (_cell(event, label, name, measure, alone=alone) for name, measure in event.measures.items())
    return Column("all" if label == ALL else route_shown(label, teachers), tuple(cells))


def _table(measures: Sequence[str], columns: Sequence[Column]) -> Table:
    table = Table("", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(Text(column.head, overflow="ellipsis", no_wrap=True), justify="right")
    for row, label in enumerate(measures):
        cells = [column.cells[row] for column in columns]
        if any(cells):
            table.add_row(Text(label), *cells)
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
