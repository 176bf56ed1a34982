"""What a run took and cost: its seconds and tokens, and its tokens by the config's prices."""

from collections.abc import Iterator
from dataclasses import dataclass

from distillkit.frozen import Value
from distillkit.report.run_record import RunRecord

PRICED = {
    "sampled": "sample_per_million_tokens",
    "scored": "score_per_million_tokens",
    "trained": "train_per_million_tokens",
}
"""What is done with a completion's tokens, to its price in the config."""


@dataclass(frozen=True, slots=True)
class Fact(Value):
    """A figure of a run with its name, as text."""

    label: str
    text: str


def facts(run: RunRecord) -> tuple[Fact, ...]:
    """Steps, completions, tokens, seconds, throughput and cost, as far as they are known."""
    return tuple(_facts(run))


def _facts(run: RunRecord) -> Iterator[Fact]:
    summary = run.summary
    yield Fact("steps trained", f"{run.trained:,}")
    trained, tokens = trained_completions(run), completion_tokens(run)
    if trained is not None:
        yield Fact("completions trained", f"{trained:,.0f}")
    if tokens:
        yield Fact("tokens of completions", f"{tokens:,.0f}")
    wall, train = _number(run, "wall_s"), _number(run, "train_s")
    if wall:
        yield Fact("time in all", duration(wall))
    if train:
        yield Fact("time in steps", duration(train))
    if tokens and train:
        yield Fact("trained tokens a second", f"{tokens / train:,.0f}")
    if summary.get("adapter_path"):
        yield Fact("weights", str(summary["adapter_path"]).replace("\\", "/").rpartition("/")[2])


def trained_completions(run: RunRecord) -> float | None:
    """As the summary counts them, which is written now and then, or the ledger, which has each step's."""
    counted, listed = _number(run, "trained_completions"), run.losses.completions.get("trained")
    return max(counted or 0.0, listed) if listed else counted


def completion_tokens(run: RunRecord) -> float:
    """Tokens of completions that were trained: as the summary counts them, or the steps so far."""
    counted = _number(run, "completion_tokens") or 0.0
    return max(counted, sum(value for _, value in run.values("train/active_tokens")))


@dataclass(frozen=True, slots=True)
class Cost(Value):
    """What tokens of completions cost by the config's prices."""

    what: str
    """What is done with them: `sampled`, `scored` or `trained`."""
    tokens: str
    price: str
    """A million of them."""
    cost: str


def costs(run: RunRecord) -> tuple[Cost, ...]:
    """What is sampled, scored and trained, and the sum; nothing where the config has no prices."""
    prices = run.config.get("prices")
    if not isinstance(prices, dict):
        return ()
    rates = {what: float(rate) for what, key in PRICED.items() if isinstance(rate := prices.get(key), int | float)}
    tokens, currency = completion_tokens(run), str(prices.get("currency", ""))
    found = {what: tokens / 1e6 * rate for what, rate in rates.items()}
    rows = [Cost(what, f"{tokens:,.0f}", f"{rates[what]:g} {currency}", f"{cost:,.2f}") for what, cost in found.items()]
    return (*rows, Cost("in all", "", "", f"{sum(found.values()):,.2f} {currency}")) if rows else ()


def duration(seconds: float) -> str:
    """`42 s`, `12:03 min` or `3:05 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _number(run: RunRecord, name: str) -> float | None:
    value = run.summary.get(name)
    return float(value) if isinstance(value, int | float) else None


PHASES = {"sample": "sampling", "score": "scoring", "train": "training", "sync": "publishing", "eval": "evaluating"}
"""Names behind `time/`, in words."""


def seconds_by_phase(run: RunRecord) -> tuple[Fact, ...]:
    """The sum of each phase over the steps; sampling and scoring overlap where teachers are on servers."""
    sums = {label: sum(value for _, value in run.values(f"time/{name}")) for name, label in PHASES.items()}
    return tuple(Fact(label, duration(seconds)) for label, seconds in sums.items() if seconds)
