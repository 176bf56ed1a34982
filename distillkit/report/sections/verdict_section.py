"""What a run came to, in three sentences, and what could not be read of it."""

from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord
from distillkit.report.section import Section
from distillkit.verdict.short_verdict import short_verdict


def verdict_section(runs: tuple[RunRecord, ...]) -> Section:
    """The verdict of each run."""
    said = [(run, short_verdict(run.verdict) if run.verdict is not None else ()) for run in runs]
    return Section("verdict", "Verdict", rendered("verdict.html", said=said, several=len(runs) > 1))
