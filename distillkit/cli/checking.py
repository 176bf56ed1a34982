"""`distillkit check`: what a run would do and take, whether it can start, and with `--probe` what comes back."""

import asyncio

from distillkit.cli.check_page import show_prepared_run
from distillkit.cli.probe_page import probe_and_report
from distillkit.cli.reporting import OUT
from distillkit.cli.row_page import show_row
from distillkit.cli.working import Working
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError, MissingExtraError
from distillkit.events import Notice
from distillkit.loop.execute import work_beside
from distillkit.memory import PlannedDevice
from distillkit.preflight.known_devices import planned_device
from distillkit.preflight.prepared_run import PreparedRun, prepare_run
from distillkit.preflight.run_rows import RunRows
from distillkit.ranks import Rank
from distillkit.registry import Registry
from distillkit.run_directory.directory import holds_run, require_writable_path, run_directory


def check_and_report(
    config: RunConfig,
    registry: Registry,
    rank: Rank,
    *,
    probe: bool = False,
    quiet: bool = False,
    device: str | None = None,
) -> None:
    """Check, and print what was found; `quiet`: only results. Raises InputError if anything is wrong, or missing.

    `device` is a card that the run is planned for, in the place of this machine's.
    """
    planned = None if device is None else planned_device(device)
    if planned is not None and probe:
        raise InputError("--probe computes on this machine, and --device plans for another; take one of them")
    if probe and not rank.runs_engine:
        asyncio.run(work_beside(config, rank))
        return
    notices: list[Notice] = []
    run_dir = run_directory(config)
    require_writable_path(run_dir)

    def show_rows(rows: RunRows) -> None:
        if not quiet:
            show_row(rows.train, OUT)

    with Working("checking data, plugins and models ...", quiet=quiet):
        prepared = prepare_run(config, registry, notices.append, rank, planned_device=planned, show_rows=show_rows)
    if planned is not None and not prepared.missing:
        _require_card(planned, prepared)
    if not quiet:
        show_prepared_run(prepared, notices, OUT)
        held = "; it holds a run already: --resume, --overwrite, or another name" if holds_run(run_dir) else ""
        OUT.print(f"run directory: {run_dir}{held}")
    if probe and not prepared.missing:
        probe_and_report(prepared, OUT, quiet=quiet)
    if prepared.missing:
        raise MissingExtraError("\n".join(prepared.missing))
    OUT.print("check: ok")


def _require_card(planned: PlannedDevice, prepared: PreparedRun) -> None:
    """Raise InputError where the card would be planned for, and nothing would ever be on it."""
    reports = prepared.memory.reports
    if any(memory.device != "cpu" for report in reports.values() for memory in report.devices):
        return
    where = f"cpu is the device of {', '.join(reports)}" if reports else "none of its plugins holds a model here"
    raise InputError(f"--device {planned.name} plans a card, and nothing of this run computes on one: {where}")
