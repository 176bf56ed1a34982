"""A verdict and its words: the last lines of a run. Each is a fixed rule over the figures.

1. By route, a line a measure: before -> after, the difference with its standard error, and what that means.
2. What got worse, or that nothing did; and what is not told apart from chance.
3. A warning where the gap rose, fewer completions end, or they repeat themselves.
4. Where before and after cannot be compared: that nothing tells whether it worked, and what to do.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distillkit.data.counted import counted
from distillkit.frozen import Value
from distillkit.verdict.run_verdict import Change, Decay, DecayWarning, Missing, Outcome, RouteVerdict

WIDTH = 80
OUTCOMES: dict[Outcome, str] = {
    "better": "better",
    "worse": "WORSE",
    "changed": "changed",
    "same": "the same",
    "unclear": "not told apart",
    "unknown": "cannot be told",
}
MISSING: dict[Missing, str] = {
    "held-out rows": (
        "there are no held-out rows. Set data.eval_path to rows that are not trained on (a few dozen of each route), "
        "and the next run measures them before and after"
    ),
    "evaluators": (
        "`evaluators` is empty. Take it out of the config, and the next run measures the reverse KL on the held-out "
        "rows before and after; exact_match and pattern look at the answers"
    ),
    "before": (
        "the held-out rows that were measured before training are not there to compare with. A run that is not resumed "
        "on other held-out rows measures the same ones before and after"
    ),
    "after": (
        "no held-out rows were measured since training began. Go on with the run, which measures them at its end, or "
        "set train.eval_every"
    ),
}
DECAYS: dict[Decay, str] = {
    "gap": "the gap to the teachers rose: the student is further from them than it was. Try a lower learning_rate",
    "endings": (
        "fewer completions end by themselves. Look at samples.jsonl, and compare how both sides end a turn "
        "(`distillkit diagnose`)"
    ),
    "repetition": (
        "completions repeat themselves more than they did. Look at samples.jsonl, and try a lower learning_rate"
    ),
}


@dataclass(frozen=True, slots=True, repr=False)
class Verdict(Value):
    """Whether a run worked, as far as it was measured."""

    missing: Missing | None
    """What is not there to compare: `evaluators`, `held-out rows`, or the evaluation `before` or `after`; else None."""
    step: int
    """Steps trained at the evaluation that is compared; without one, all so far."""
    overall: RouteVerdict | None
    """All held-out rows; None where nothing can be compared."""
    routes: tuple[RouteVerdict, ...]
    """Each route's."""
    training: tuple[Change, ...]
    """The first steps of training and the newest, which are of other rows; empty where there were too few."""
    warnings: tuple[DecayWarning, ...]
    """What speaks against what was trained."""
    left_out: tuple[str, ...] = ()
    """What people call measures that are not compared: what was measured of them is no finite number."""

    @property
    def worse(self) -> tuple[tuple[str, Change], ...]:
        """How people read a route, and what got worse there; of all rows (empty) too, unless one route is all."""
        found = [(route.shown, change) for route in self.routes for change in route.changes]
        worse = [each for each in found if each[1].outcome == "worse"]
        seen = {change.metric for _, change in worse} if len(self.routes) == 1 else set()
        overall = () if self.overall is None else self.overall.changes
        rest = (change for change in overall if change.outcome == "worse" and change.metric not in seen)
        return (*worse, *(("", change) for change in rest))

    def __str__(self) -> str:
        """The last lines of the run."""
        return "\n".join(verdict_lines(self))

    def __repr__(self) -> str:
        """One line for a notebook or a log; `print` gives all of them."""
        if self.overall is None:
            return f"<Verdict: nothing tells whether it worked, missing: {self.missing}>"
        outcomes = [change.outcome for route in (self.routes or (self.overall,)) for change in route.changes]
        told = [f"{outcomes.count(outcome)} {outcome}" for outcome in OUTCOMES if outcome in outcomes]
        rows, warnings = counted(self.overall.rows, "held-out row"), counted(len(self.warnings), "warning")
        return f"<Verdict after {counted(self.step, 'step')}, on {rows}: {', '.join([*told, warnings])}>"


def verdict_lines(verdict: Verdict) -> tuple[str, ...]:
    """What a verdict says, each line at most 80 characters long."""
    overall = verdict.overall
    said = _nothing_tells(verdict) if overall is None else _compared(verdict, overall)
    by_decay: dict[Decay, list[DecayWarning]] = {}
    for warning in verdict.warnings:
        by_decay.setdefault(warning.decay, []).append(warning)
    left_out = f"Left out, since what was measured is no finite number: {', '.join(verdict.left_out)}."
    unknown = _wrapped(left_out) if verdict.left_out else ()
    return (*said, *unknown, *(line for each in by_decay.values() for line in _wrapped(warning_sentence(each))))


def _nothing_tells(verdict: Verdict) -> Iterator[str]:
    yield from _wrapped(f"Nothing tells whether it worked: {MISSING[verdict.missing or 'after']}.")
    if verdict.training:
        steps = counted(verdict.training[0].rows or 0, "step")
        yield from _wrapped(
            f"All there is are the rows it trained on, the first {steps} -> the last {steps}, which are of other rows, "
            "so this is no comparison:"
        )
        yield from _changes(verdict.training, told=False)


def _compared(verdict: Verdict, overall: RouteVerdict) -> Iterator[str]:
    rows = counted(overall.rows, "held-out row")
    yield from _wrapped(
        f"Before -> after {counted(verdict.step, 'step')}, on {rows} (± is the standard error of the difference, "
        "paired by row):"
    )
    routes: Sequence[RouteVerdict] = verdict.routes
    if len(routes) > 1:
        routes = (*routes, overall)
    for route in routes:
        yield _cut(f"{route.shown or 'all'}, {counted(route.rows, 'row')}")
        yield from _changes(route.changes)
    yield from _wrapped(balance(verdict, overall))


def balance(verdict: Verdict, overall: RouteVerdict) -> str:
    """What got worse, and whether there were rows enough to tell: of each route, or of all rows together."""
    outcomes = {change.outcome for route in (*verdict.routes, overall) for change in route.changes}
    worse: dict[str, list[str]] = {}
    for name, change in verdict.worse:
        worse.setdefault(change.label, []).append(name or "all")
    if worse:
        found = (f"{label} ({', '.join(names)})" for label, names in worse.items())
        return f"What got worse on the held-out rows: {'; '.join(found)}."
    if "better" in outcomes:
        return "Nothing got worse on the held-out rows by more than two standard errors."
    if outcomes <= {"unknown", "same"}:
        changes = [change for route in (*verdict.routes, overall) for change in route.changes]
        lacks = any(change.outcome == "unknown" and change.rows is None for change in changes)
        by_row = ", and evaluators that say what each row gave (`EvalResult.by_row`)" if lacks else ""
        return (
            f"Whether that is more than chance cannot be told: it takes six held-out rows of a route or more{by_row}."
        )
    return (
        "Nothing got better or worse on the held-out rows by more than two standard errors: more of them tell more "
        "(four times as many halve the error), and more steps may do more."
    )


def warning_sentence(warnings: Sequence[DecayWarning]) -> str:
    """That of one kind, wherever it was found."""
    figures = "; ".join(f"{each.shown or 'all'} {_both(each.change)}" for each in warnings)
    return f"warning: {DECAYS[warnings[0].decay]}. {warnings[0].change.label}: {figures}."


def _changes(changes: Sequence[Change], *, told: bool = True) -> Iterator[str]:
    for change in changes:
        error = (
            ""
            if change.standard_error is None or not told
            else f" ± {change.measure.text(change.standard_error, like=change.difference)}"
        )
        moved = "" if change.outcome == "same" else change.measure.text(change.difference, signed=True) + error
        outcome = OUTCOMES[change.outcome] if told else ""
        yield f"  {change.label[:29]:<29} {_both(change):>15}  {moved:<15} {outcome}".rstrip()


def _both(change: Change) -> str:
    return change.measure.both(change.before, change.after)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
