"""What became of rows and completions, from `ledger.jsonl`, in groups: by outcome, stage, teacher and reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distillkit.files.jsonl import read_json_lines
from distillkit.frozen import FrozenDict, Value, freeze_fields

MOST = 200
"""Groups of losses that are kept, the largest."""


@dataclass(frozen=True, slots=True)
class LossGroup(Value):
    """Completions that were lost alike."""

    stage: str
    """How far they came: `sample`, `score` or `train`."""
    teacher: str
    """Which teacher did not score them; empty where it was none."""
    reason: str
    count: int
    """How many completions."""
    rows: tuple[str, ...]
    """The ids of the first rows among them."""


@dataclass(frozen=True, slots=True)
class Losses(Value):
    """What a ledger adds up to."""

    rows: Mapping[str, int] = field(default_factory=FrozenDict)
    """Outcome (`trained`, `failed`, `kept`) to row-epochs."""
    completions: Mapping[str, int] = field(default_factory=FrozenDict)
    """The same of completions."""
    routes: Mapping[str, Mapping[str, int]] = field(default_factory=FrozenDict)
    """Label of a route to outcome to row-epochs."""
    groups: tuple[LossGroup, ...] = ()
    """The largest first."""
    damaged: int = 0
    """Lines that cannot be read."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_fields(self, "rows", "completions", "routes")


SHOWN_ROWS = 5
Key = tuple[str, str, str]


def read_losses(path: Path) -> Losses:
    """What the ledger at `path` adds up to. Raises OSError."""
    rows: Counter[str] = Counter()
    completions: Counter[str] = Counter()
    routes: dict[str, Counter[str]] = {}
    lost: Counter[Key] = Counter()
    examples: dict[Key, list[str]] = {}
    damaged = 0
    for entry in read_json_lines(path):
        try:
            outcome, row, route = str(entry["outcome"]), str(entry["row_id"]), str(entry["route"])
            parts = [(str(each["outcome"]), each) for each in entry["completions"]]
        except (TypeError, KeyError):
            damaged += 1
            continue
        rows[outcome] += 1
        routes.setdefault(route, Counter())[outcome] += 1
        completions.update(ended for ended, _ in parts)
        for ended, each in parts:
            if ended == "failed":
                key = (str(each.get("stage", "")), str(each.get("teacher") or ""), str(each.get("reason", "")))
                lost[key] += 1
                known = examples.setdefault(key, [])
                if len(known) < SHOWN_ROWS and row not in known:
                    known.append(row)
    groups = tuple(LossGroup(*key, count, tuple(examples[key])) for key, count in lost.most_common(MOST))
    return Losses(rows, completions, routes, groups, damaged)
