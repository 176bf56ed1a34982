"""What `teachers[].share` makes of the rows, in words."""

from collections.abc import Iterator, Sequence

from distillkit.data.counted import counted
from distillkit.data.training_order import TrainingOrder
from distillkit.metrics import route_shown
from distillkit.types import Teacher


def share_notes(order: TrainingOrder, planned: int) -> Iterator[str]:
    """Routes whose rows are not trained equally often in a run of `planned` rows as they would be without shares."""
    for name, rows in order.counts(planned).items():
        there = len(order.routes[name])
        start = f"teacher {name!r}: with its share it trains {counted(rows, 'row')} of {there:,}"
        if rows < there:
            yield f"{start}, so that {there - rows:,} are not trained"
        elif rows != there * order.epochs:
            yield f"{start}, each {_how_often(rows, there)} (data.epochs={order.epochs})"


def _how_often(rows: int, there: int) -> str:
    least, rest = divmod(rows, there)
    words = [{1: "once", 2: "twice"}.get(times, f"{times:,} times") for times in (least, least + 1)]
    return " or ".join(words) if rest else words[0]


def share_row(order: TrainingOrder, planned: int, teachers: Sequence[Teacher]) -> str:
    """Each route's share with the rows that it comes to, for `distillkit check`."""
    counts = order.counts(planned)
    return ", ".join(
        f"{route_shown(name, teachers)} {share:.1%} ({counts[name]:,} of {counted(planned, 'row')})"
        for name, share in order.shares.items()
    )
