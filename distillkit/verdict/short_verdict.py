"""A verdict in three sentences: what changed, what got worse or whether that can be told, and warnings."""

from distillkit.data.counted import counted
from distillkit.verdict.run_verdict import RouteVerdict
from distillkit.verdict.verdict_sentences import DECAYS, MISSING, OUTCOMES, Verdict, balance, warning_sentence

MOST_ROUTES = 4
"""Routes that the first sentence names; of more it gives all rows together."""


def short_verdict(verdict: Verdict) -> tuple[str, ...]:
    """Three sentences, each by the rules of `verdict_lines`; of a run that measured nothing, two or three."""
    if verdict.overall is None:
        return _nothing_tells(verdict)
    return (_changed(verdict, verdict.overall), balance(verdict, verdict.overall), _warned(verdict))


def _changed(verdict: Verdict, overall: RouteVerdict) -> str:
    """The measure that comes first, by route; what was measured besides stands in the table."""
    routes = verdict.routes if 1 < len(verdict.routes) <= MOST_ROUTES else (overall,)
    when = f"After {counted(verdict.step, 'step')}, on {counted(overall.rows, 'held-out row')}"
    first = next((route.changes[0] for route in routes if route.changes), None)
    if first is None:
        return f"{when}, nothing was measured both before and after."
    found = [
        f"{f'{route.shown} ' if len(routes) > 1 else ''}{change.measure.both(change.before, change.after)} "
        f"({OUTCOMES[change.outcome]})"
        for route in routes
        for change in route.changes
        if change.metric == first.metric
    ]
    return f"{when}, {first.label}: {', '.join(found)}."


def _warned(verdict: Verdict) -> str:
    if not verdict.warnings:
        return (
            "No warning from the held-out rows: no gap to a teacher rose, and completions neither ceased to end nor "
            "began to repeat themselves."
        )
    kinds = dict.fromkeys(warning.decay for warning in verdict.warnings)
    by_kind = [[each for each in verdict.warnings if each.decay == kind] for kind in DECAYS if kind in kinds]
    said = [warning_sentence(each).removeprefix("warning: ") for each in by_kind]
    return f"Warning: {' '.join(said)}"


def _nothing_tells(verdict: Verdict) -> tuple[str, ...]:
    said = [f"Nothing tells whether it worked: {MISSING[verdict.missing or 'after']}."]
    if verdict.training:
        changes = [f"{each.label} {each.measure.both(each.before, each.after)}" for each in verdict.training]
        steps = counted(verdict.training[0].rows or 0, "step")
        said.append(
            f"On the rows that it trained on, the first {steps} -> the last {steps}, which are of other rows: "
            f"{', '.join(changes)}."
        )
    return (*said, *((_warned(verdict),) if verdict.warnings else ()))
