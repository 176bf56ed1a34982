"""What a run came to: its verdict in three sentences, what to look at first, and what could not be read of it."""

from collections.abc import Mapping

from distillkit.data.counted import counted
from distillkit.report.cost import facts
from distillkit.report.findings import findings
from distillkit.report.going_on import how_to_go_on
from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord, Status
from distillkit.report.section import ReportSection
from distillkit.verdict.short_verdict import short_verdict

STATES: Mapping[Status, str] = {
    "completed": "",
    "running": "It goes on: this page shows what there was when it was made, {steps} so far.",
    "stopped": "Its process is gone, and it did not come to its end: it was killed, or the machine went down, "
    "after {steps}. {go_on}",
    "interrupted": "It was interrupted after {steps}. {go_on}",
    "failed": "It failed after {steps}. {go_on}",
    "unknown": "Nothing says how it ended: it began, and left no summary; there are {steps}.",
}


def verdict_section(runs: tuple[RunRecord, ...]) -> ReportSection:
    """The verdict of each run."""
    said = [(run, _state(run), sentences(run), findings(run), facts(run)) for run in runs]
    return ReportSection("verdict", "Verdict", rendered("verdict.html", said=said, several=len(runs) > 1))


def _state(run: RunRecord) -> str:
    """How far it came, and how it goes on; empty where it came to its end."""
    of_all = "" if run.planned is None else f" of {run.planned:,}"
    steps = f"{run.trained:,}{of_all} steps" if of_all else counted(run.trained, "step")
    return STATES[run.status].format(steps=steps, go_on=how_to_go_on(run))


def sentences(run: RunRecord) -> tuple[str, ...]:
    """Three of them, where the run came to its end."""
    if run.verdict is None:
        return ("Its summary holds no verdict.",) if run.status == "completed" else ()
    said = short_verdict(run.verdict)
    return tuple(sentence.replace(" -> ", " → ") for sentence in said)
