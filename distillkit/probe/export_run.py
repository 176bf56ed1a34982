"""The weights of a run, written for others to use: those of a checkpoint, or all as one whole model."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.events import Notice
from distillkit.files.permissions import apply_umask
from distillkit.loop.final_weights import export_weights
from distillkit.probe.open_student import StudentAlone, checked_student, opened_student
from distillkit.publishing.hub_files import ADAPTER_CONFIG
from distillkit.ranks import ONLY
from distillkit.registry import Registry
from distillkit.roles.attribution import attribute_to
from distillkit.run_directory.held_weights import held_weights
from distillkit.run_directory.saved_run import SavedWeights, exported_weights


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What is written, checked as far as it can be before anything is loaded."""

    alone: StudentAlone
    registry: Registry
    weights: SavedWeights
    folder: Path
    merged: bool
    """Whether it is to be a whole model."""


@contextmanager
def planned_export(
    config: RunConfig,
    registry: Registry,
    run_dir: Path,
    folder: Path,
    step: int | None,
    tell: Callable[[Notice], None],
    *,
    merged: bool,
) -> Iterator[ExportPlan]:
    """What is written, of weights that stay until the block ends.

    Raises InputError, with the reason, where that cannot be written or there is nothing to write.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already; name a directory that is not, or an empty one")
    try:
        with attribute_to(config.student, "in require_exportable()"):
            config.student.require_exportable(merged=merged)
    except InputError as error:
        if (own := exported_weights(run_dir)) is not None:
            error.add_note(_what_is_there(own.path, merged=merged))
        raise
    with _chosen(run_dir, step, tell, merged=merged) as weights:
        if weights is None:
            raise InputError("--step 0: nothing was trained then; the model of the config is what there is")
        if weights.exported and not merged:
            raise InputError(
                f"{weights.path} is that export already; --merge writes a whole model of it, --step N the weights of "
                "another checkpoint"
            )
        alone = checked_student(config, tell, ONLY, weights, samples=False)
        yield ExportPlan(alone, registry, weights, folder, merged)


def _what_is_there(exported: Path, *, merged: bool) -> str:
    """What a run's own export is good for, where no other can be written."""
    if (exported / ADAPTER_CONFIG).is_file():
        merges = "; PEFT merges it into its base model (merge_and_unload)" if merged else ""
        return f"the adapter that the run ended with is {exported}{merges}"
    if any(exported.glob("*.safetensors")):
        return f"the model that the run ended with is {exported}"
    readme = exported / "README.md"
    return f"where the weights are that the run ended with, says {readme if readme.is_file() else exported}"


@contextmanager
def _chosen(
    run_dir: Path, step: int | None, tell: Callable[[Notice], None], *, merged: bool
) -> Iterator[SavedWeights | None]:
    """What the run exported itself, unless a checkpoint is asked for that is kept and need not be merged."""
    own = exported_weights(run_dir)
    if own is not None and (step is None or (merged and step == own.step)):
        yield own
        return
    with held_weights(run_dir, step, tell) as weights:
        yield weights


async def write_export(plan: ExportPlan, say: Callable[[str], None] = lambda doing: None) -> Path:
    """Write it; returns what was written. What is half-written is removed."""
    made = not plan.folder.exists()
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        return await _written(plan, say)
    except BaseException:
        if made:
            shutil.rmtree(plan.folder, ignore_errors=True)
        else:
            _empty(plan.folder)
        raise


async def _written(plan: ExportPlan, say: Callable[[str], None]) -> Path:
    student = plan.alone.config.student
    if not plan.merged:
        return await _exported(plan, plan.folder)
    with tempfile.TemporaryDirectory(dir=plan.folder.absolute().parent, prefix=".export-") as aside:
        exported = plan.weights.path if plan.weights.exported else await _exported(plan, Path(aside))
        say("merging ...")
        with attribute_to(student, "in merge()"):
            await student.merge(plan.alone.merge_context, exported, plan.folder)
    await asyncio.to_thread(apply_umask, plan.folder)
    return plan.folder


async def _exported(plan: ExportPlan, folder: Path) -> Path:
    """What the student exports of a checkpoint."""
    async with opened_student(plan.alone, plan.registry):
        await plan.alone.load(plan.weights)
        return await export_weights(plan.alone.config.student, folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
