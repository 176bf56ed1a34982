"""What was lost and why, as the ledger has it."""

from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection


def lost_section(runs: tuple[RunRecord, ...]) -> ReportSection | None:
    """Rows and completions by outcome, and the reasons; None where no run has a ledger with a line."""
    found = [run for run in runs if run.losses.rows]
    return (
        ReportSection("lost", "What was lost", rendered("lost.html", runs=found, several=len(runs) > 1))
        if found
        else None
    )
