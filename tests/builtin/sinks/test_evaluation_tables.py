"""Tables of evaluations: before and now, by names for people, in any width."""

import io
import re

from rich.console import Console

from builtin.sinks.console_events import TEACHERS
from distillkit.events import EvalResult, Evaluated, Measure, RowValue
from distillkit_builtin.sinks.evaluation_tables import evaluation_tables


def table_of(event: Evaluated, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(evaluation_tables(event, TEACHERS, width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def results(level: float, *routes: str, failed: float = 0.0) -> dict[str, EvalResult]:
    values = {"kl": level, "rate": level / 2, "teacher_rate": 1.0}
    by_row = {"kl": {"1": RowValue(level)}, "rate": {"1": RowValue(level / 2)}}
    return {"e": EvalResult({**values, "failed": failed, "internal": 7.0}, dict.fromkeys(routes, values), by_row)}


MEASURES = {
    "kl": Measure("reverse KL", "lower"),
    "rate": Measure("right answers", "higher", "share"),
    "teacher_rate": Measure("the teacher itself", unit="share"),
    "failed": Measure("without a score", unit="count"),
}


def test_an_evaluation_shows_before_and_now_by_names_for_people() -> None:
    before, now = results(0.5, "short", "[list]"), results(0.25, "short", "[list]", failed=2.0)
    header, _, *rows = table_of(Evaluated("during", 5, now, before=before, measures=MEASURES))
    assert header.split() == ["short", "[list]", "all"]
    assert [re.split(r"  +", row) for row in rows] == [
        ["reverse KL", *["0.500 -> 0.250"] * 3],
        ["right answers", *["25% -> 12%"] * 3],
        ["the teacher itself", *["100%"] * 3],
        ["without a score", "0 -> 2"],
    ]
    first = table_of(Evaluated("before", 0, before, measures=MEASURES))
    assert [line.split()[-1] for line in first[2:]] == ["0.500", "25%", "100%"]


def test_where_there_is_one_route_it_is_all_rows() -> None:
    header, _, *rows = table_of(Evaluated("before", 0, results(0.5, "short", failed=1.0), measures=MEASURES))
    assert header.split() == ["short"]
    assert rows[-1].split()[-1] == "1"


def test_many_routes_stand_in_tables_that_fit() -> None:
    names = [f"route-{i}" for i in range(9)]
    event = Evaluated("during", 5, results(0.25, *names), before=results(0.5, *names), measures=MEASURES)
    lines = table_of(event)
    assert all(len(line) <= 80 for line in lines)
    assert [word for line in lines for word in line.split() if word in (*names, "all")] == [*names, "all"]


def test_columns_stand_whole_as_many_beside_each_other_as_fit() -> None:
    labels = ("programming-in-python-and-rust", "mathematics", "multilingual-customer-service")
    results = {"reverse_kl": EvalResult({"kl": 0.5}, {label: {"kl": 0.5} for label in labels})}
    event = Evaluated("before", 0, results, measures={"kl": Measure("reverse KL, nats a completion")})
    for width, tables in ((80, 2), (140, 1), (30, 4)):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(evaluation_tables(event, [], width))
        text = console.export_text()
        assert text.count("reverse KL, nats a completion") == tables or width == 30
        assert width == 30 or all(label in text for label in labels)
        assert all(len(line) <= width for line in text.splitlines())
