"""Metrics over a window of steps."""

from collections.abc import Collection, Iterator, Mapping

Row = Mapping[str, float | None]
"""Metrics of one step."""
ROUTE, GAP = "teacher_route/", "/reverse_kl"


def mean_over(name: str, rows: Collection[Row]) -> float | None:
    """The mean of a metric over the steps that have it; None where none has."""
    values = [value for row in rows if (value := row.get(name)) is not None]
    return sum(values) / len(values) if values else None


def route_gaps(metrics: Row) -> Iterator[tuple[str, float]]:
    """The name and value of each route's reverse KL that the metrics have."""
    for name, value in metrics.items():
        if value is not None and name.startswith(ROUTE) and name.endswith(GAP):
            yield name, value
