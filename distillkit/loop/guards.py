"""Is the student collapsing? Seen in the metrics of a window of steps against those of the run's first window.

What on-policy training is known to run into: completions that grow to the length limit, that repeat themselves, a
policy that has hardly any entropy left, a gap to the teachers that rises again, or to one of them while others' fall.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from distillkit.config.sections import GuardsConfig
from distillkit.errors import RunFailedError
from distillkit.loop.metric_windows import Row, mean_over, route_gaps
from distillkit.loop.route_guard import LEAST_CHANGE, RouteGuard
from distillkit.significant import significant
from distillkit.verdict.verdict_of import Steps

TRUNCATED, REPETITION = "completions/truncated_fraction", "completions/repetition"
ENTROPY, GAP = "train/sampling_nll", "train/reverse_kl"
SEEN = (TRUNCATED, REPETITION, ENTROPY, GAP, "completions/mean_length")


@dataclass(slots=True)
class Guards:
    """Looks at each step's metrics; what it knows is what `metrics.jsonl` holds, so a resume changes nothing."""

    config: GuardsConfig
    warn: Callable[[str], None]
    steps: int = 0
    """How many steps were checked."""
    alarm: str | None = None
    """Why the run is to end, once the step in hand is saved; None: it goes on."""
    _first: list[Row] = field(default_factory=list)
    """The run's first window."""
    _last: deque[Row] = field(default_factory=deque)
    """The newest window."""
    _least_gap: float = math.inf
    """The mean reverse KL of the best window so far."""
    _quiet_until: int = 0
    _routes: RouteGuard = field(init=False)

    def __post_init__(self) -> None:
        """Watch routes as the config says."""
        self._routes = RouteGuard(self.config.route_gap_rise)

    def remember(self, rows: Iterable[Mapping[str, JsonValue]]) -> None:
        """The lines of `metrics.jsonl` from before this process began, checked as they were then."""
        for row in rows:
            numbers = _numbers(row)
            if numbers.get("step"):
                self._alarms_of(numbers)

    def check(self, metrics: Row) -> None:
        """Check one more step: warn, or set `alarm`."""
        alarms = self._alarms_of(metrics)
        if not alarms:
            return
        text = f"the student may be collapsing: {'; '.join(alarms)} (guards, over {self.config.window} steps)"
        if self.config.action == "stop":
            self.alarm = text
        else:
            self.warn(text)

    def steps_seen(self) -> Steps:
        """The run's first steps and its newest, as many of both and none in both: at most a window's, at least two."""
        count = min(self.config.window, self.steps // 2)
        return Steps(self.steps, self._first[:count], list(self._last)[-count:]) if count > 1 else Steps(self.steps)

    def _alarms_of(self, metrics: Row) -> list[str]:
        """At most one alarm a window."""
        self.steps += 1
        seen = {name: metrics.get(name) for name in SEEN} | dict(route_gaps(metrics))
        self._last.append(seen)
        if len(self._first) < self.config.window:
            self._first.append(seen)
        if len(self._last) > self.config.window:
            self._last.popleft()
        alarms = list(self._alarms())
        if not alarms or self.steps < self._quiet_until:
            return []
        self._quiet_until = self.steps + self.config.window
        return alarms

    def _alarms(self) -> Iterable[str]:
        config = self.config
        if config.action == "off" or len(self._last) < config.window:
            return
        gaps = [*self._rising_gap(), *self._routes.alarms(self._first, self._last)]
        if self.steps < 2 * config.window:
            return
        yield from gaps
        for name, limit, what in (
            (TRUNCATED, config.truncated_rise, "completions grow to the length limit"),
            (REPETITION, config.repetition_rise, "completions repeat themselves"),
        ):
            first, last = mean_over(name, self._first), mean_over(name, self._last)
            if limit is not None and first is not None and last is not None and last - first >= limit:
                yield f"{what}, {name} rose from {first:.2f} to {last:.2f}"
        first, last = mean_over(ENTROPY, self._first), mean_over(ENTROPY, self._last)
        share = config.entropy_fall
        if share is not None and first is not None and last is not None and last < share * first:
            yield f"hardly any entropy is left, {ENTROPY} fell from {significant(first)} to {significant(last)}"

    def _rising_gap(self) -> list[str]:
        share, last = self.config.reverse_kl_rise, mean_over(GAP, self._last)
        if last is None:
            return []
        best = self._least_gap
        self._least_gap = min(best, last)
        if share is None or not math.isfinite(best) or last - best <= max(LEAST_CHANGE, share * best):
            return []
        return [f"the gap to the teachers rises, {GAP} is {significant(last)} after {significant(best)}"]


def _numbers(row: Mapping[str, JsonValue]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, float | int)}


def stop_error(reason: str) -> RunFailedError:
    """The error that ends a run with `guards.action: stop`; its message says how to go on."""
    return RunFailedError(
        f"{reason}; a checkpoint was written. --resume guards.action=warn goes on all the same, and "
        "--resume --from-step N from an older checkpoint (train.keep_last says how many are kept)"
    )
