"""Guards, warnings and errors, as `run.log` has them."""

from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection


def warnings_section(runs: tuple[RunRecord, ...]) -> ReportSection:
    """What each run was warned of, and whether its guards looked."""
    said = [(run, _guards(run)) for run in runs]
    return ReportSection("warnings", "Guards and warnings", rendered("warnings.html", said=said, several=len(runs) > 1))


def _guards(run: RunRecord) -> str:
    guards = run.config.get("guards")
    action = guards.get("action") if isinstance(guards, dict) else None
    says = {"off": "Guards are off: a collapse is not looked for.", "stop": "Guards look for a collapse, and stop."}
    return says.get(str(action), "Guards look for a collapse, and warn.") if action else ""
