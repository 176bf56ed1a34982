"""`distillkit diagnose`: prepare a run as `check` does, measure, and report."""

import asyncio
from dataclasses import replace

from distillkit.cli.diagnosis_page import as_json, show_diagnosis, show_sentences
from distillkit.cli.reporting import ERR, OUT
from distillkit.cli.working import Working
from distillkit.config.run_config import RunConfig
from distillkit.diagnosis.figures_of import diagnosis_of
from distillkit.diagnosis.measurement import measured
from distillkit.files.os_errors import explain_os_errors
from distillkit.loop.execute import work_beside
from distillkit.preflight.prepared_run import prepare_run
from distillkit.ranks import Rank
from distillkit.registry import Registry
from distillkit.run_directory.directory import require_writable_path, run_directory


def diagnose_and_report(
    config: RunConfig, registry: Registry, rank: Rank, rows: int, *, json: bool = False, quiet: bool = False
) -> None:
    """Measure and print: tables and sentences, the sentences alone (`quiet`), or all of it as JSON.

    Notes go to standard error, so that what a program reads is the diagnosis alone.
    """
    if not rank.runs_engine:
        asyncio.run(work_beside(config, rank))
        return

    def notify(note: str) -> None:
        if not quiet:
            ERR.say(f"note: {note}")

    require_writable_path(run_directory(config))
    with Working(quiet=quiet) as working, explain_os_errors():
        prepared = prepare_run(config, registry, notify, rank, trains=False)
        for notice in () if quiet else prepared.notices:
            ERR.say(notice.shown)
        found = diagnosis_of(
            asyncio.run(measured(prepared, rows, notify, working.progress)), list(prepared.plugins.scorers)
        )
    if json:
        OUT.print(as_json(config.name, found), emoji=False)
        return
    shown = {teacher.name: teacher.shown for teacher in prepared.pipeline.routed_to}
    read = replace(found, routes={shown[name]: figures for name, figures in found.routes.items()})
    if quiet:
        show_sentences(read, OUT)
    else:
        show_diagnosis(config.name, read, OUT)
