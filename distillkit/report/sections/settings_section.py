"""What was set: of one run what is not at its default, of several what differs."""

import json

from pydantic import JsonValue

from distillkit.registry import Registry
from distillkit.report.chosen_settings import all_settings, chosen_settings, differing_settings
from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection

LONGEST = 600
"""Characters of a value."""
FEW = 5
"""Options that only some of the runs have, as of another loss; more than these are folded."""


def settings_section(runs: tuple[RunRecord, ...]) -> ReportSection | None:
    """The table; None where no config can be read."""
    read = [run for run in runs if run.config]
    if not read:
        return None
    if len(runs) > 1:
        names = [run.name for run in read]
        found = differing_settings([run.config for run in read])
        everywhere = set.intersection(*(set(all_settings(run.config)) for run in read))
        rows = [(key, [_shown(value) for value in values]) for key, values in found.items()]
        some = [row for row in rows if row[0] not in everywhere]
        some = some if len(some) > FEW else []
        html = rendered("settings.html", rows=[row for row in rows if row not in some], some=some, names=names)
        return ReportSection("settings", "Settings that differ", html)
    chosen = chosen_settings(read[0].config, Registry.discover())
    rows = [(key, [_shown(value)]) for key, value in chosen.items()]
    return ReportSection("settings", "Settings", rendered("settings.html", rows=rows, some=[], names=[]))


def _shown(value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
