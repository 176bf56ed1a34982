"""`distillkit diagnose`: prepare a run as `check` does, measure, and report."""

import asyncio
from dataclasses import replace

from distillkit.cli.command_start import start_command
from distillkit.cli.diagnosis_page import as_json, show_diagnosis, show_sentences
from distillkit.cli.reporting import OUT
from distillkit.cli.working import Working
from distillkit.config.run_config import RunConfig
from distillkit.diagnosis.figures_of import diagnosis_of
from distillkit.diagnosis.measurement import measured
from distillkit.files.os_errors import explain_os_errors
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
    tell = start_command(config, rank, quiet=quiet)
    if tell is None:
        return
    require_writable_path(run_directory(config))
    with Working(quiet=quiet) as working, explain_os_errors():
        prepared = prepare_run(config, registry, tell, rank, trains=False)
        for notice in prepared.notices:
            tell(notice)
        found = diagnosis_of(
            asyncio.run(measured(prepared, rows, tell, working.progress)), list(prepared.plugins.scorers)
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
