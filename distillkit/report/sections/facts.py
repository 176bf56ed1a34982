"""What each run took and cost, and where its numbers come from."""

from collections.abc import Mapping
from typing import Any

from distillkit.report.cost import costs, seconds_by_phase
from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection


def facts_section(runs: tuple[RunRecord, ...]) -> ReportSection:
    """Costs by the config's prices, seconds by phase, and the provenance of the summary."""
    found = [(run, costs(run), seconds_by_phase(run), provenance(run)) for run in runs]
    return ReportSection("cost", "Time, cost and origin", rendered("facts.html", found=found, several=len(runs) > 1))


def provenance(run: RunRecord) -> list[tuple[str, str]]:
    """Command, times, versions, and what plugins were resolved to."""
    found: Any = run.summary.get("provenance")
    if not isinstance(found, Mapping):
        return []
    rows = [(name, str(found[name])) for name in ("command", "started", "ended") if found.get(name)]
    if found.get("resumed_after") is not None:
        rows.append(("resumed after step", str(found["resumed_after"])))
    if isinstance(found.get("processes"), int) and found["processes"] > 1:
        rows.append(("processes", str(found["processes"])))
    versions, plugins = found.get("versions"), found.get("plugins")
    if isinstance(versions, Mapping):
        rows.append(("versions", _joined(versions)))
    if isinstance(plugins, Mapping):
        rows += [(str(key), _joined(value)) for key, value in plugins.items() if isinstance(value, Mapping)]
    return rows


def _joined(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, "", [], {}))
