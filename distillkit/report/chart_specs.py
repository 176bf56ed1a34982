"""Which charts a run's metrics have: those of the table, and one of its own for each metric that is in none of them."""

import re
from collections.abc import Iterable

from distillkit.report.chart_groups import GROUPS
from distillkit.report.chart_spec import ChartSpec, Unit

HELD_OUT = "Held-out rows"
OTHER = "Other metrics"
SHARES = re.compile(r".*(?:_fraction|_rate|repetition|exact_match|accuracy)")
"""Metrics of evaluators that are shares."""
NOT_DRAWN = frozenset({"step", "time/unix"})


def specs_of(metrics: Iterable[str]) -> dict[str, list[ChartSpec]]:
    """Heading to the charts that these metrics have, in the order of the table; what is in none has one of its own."""
    names = [name for name in dict.fromkeys(metrics) if name not in NOT_DRAWN]
    groups: dict[str, list[ChartSpec]] = {}
    for heading, specs in GROUPS.items():
        groups[heading] = [spec for spec in specs if any(spec.curve_of(name) for name in names)]
    known = [spec for specs in groups.values() for spec in specs]
    rest = [name for name in names if not any(spec.curve_of(name) is not None for spec in known)]
    for name in rest:
        held_out = re.fullmatch(r"(?:eval/|eval_route/[^/]+/)(.+)", name)
        heading = HELD_OUT if held_out else OTHER
        mine = groups.setdefault(heading, [])
        if not any(spec.curve_of(name) is not None for spec in mine):
            id_ = f"{'held-out' if held_out else 'other'}-{len(mine) + 1}"
            mine.append(_own(id_, held_out[1] if held_out else name, held_out=held_out is not None))
    order = ["Learning", HELD_OUT, *GROUPS, OTHER]
    return {heading: groups[heading] for heading in dict.fromkeys(order) if groups.get(heading)}


def _own(id_: str, name: str, *, held_out: bool) -> ChartSpec:
    """The chart of a metric that is in no other."""
    exact = re.escape(name)
    patterns = (f"eval/{exact}", f"eval_route/([^/]+)/{exact}") if held_out else (exact,)
    title = name.replace("_", " ") if held_out else name
    kind: Unit = "share" if held_out and SHARES.fullmatch(name) else "number"
    return ChartSpec(id_, title[:1].upper() + title[1:], "share" if kind == "share" else "", "", patterns, kind=kind)
