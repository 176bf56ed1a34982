"""`distillkit export`: a run's weights for others to use, of any checkpoint, or merged into a whole model."""

import asyncio
from pathlib import Path

from distillkit.cli.command_start import tells
from distillkit.cli.reporting import OUT
from distillkit.cli.working import Working
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.files.jsonl import explain_write_errors
from distillkit.files.os_errors import explain_os_errors
from distillkit.probe.export_run import planned_export, write_export
from distillkit.ranks import Rank
from distillkit.registry import Registry


def export_and_report(
    config: RunConfig,
    registry: Registry,
    rank: Rank,
    run_dir: Path,
    folder: Path,
    step: int | None,
    *,
    merged: bool,
    quiet: bool = False,
) -> None:
    """Write the weights, and say where. Raises InputError, with the reason, where that cannot be."""
    if rank.count > 1:
        raise InputError("export works in one process; start it without torchrun")
    with Working(quiet=quiet) as working, explain_os_errors(), explain_write_errors(folder):
        tell = tells(quiet=quiet)
        with planned_export(config, registry, run_dir, folder, step, tell, merged=merged) as plan:
            path = asyncio.run(write_export(plan, working.say))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    what = "the whole model" if merged else path.name
    OUT.say(f"{what} after step {plan.weights.step}: {path} ({_bytes(size)}; its README.md shows how to load it)")


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
