"""What is likely not meant so of the rows and of how they are used, before a run: none of it stops the run."""

from collections.abc import Iterator, Sequence

from distillkit.config.run_config import RunConfig
from distillkit.data.counted import counted
from distillkit.data.row_pipeline import RowPipeline
from distillkit.errors import PluginError
from distillkit.preflight.run_rows import MeasuredRows, RunRows
from distillkit.preflight.same_rows import repeated_rows, trained_held_out_rows
from distillkit.roles.attribution import attribute_to
from distillkit.roles.evaluator import Evaluator
from distillkit.types import RoutedRow, Teacher
from distillkit.verdict.paired_change import LEAST_ROWS, rows_to_hold_out


def row_warnings(
    config: RunConfig,
    read: RunRows,
    train: MeasuredRows,
    held_out: MeasuredRows | None,
    routed_held_out: Sequence[RoutedRow],
) -> Iterator[str]:
    """A sentence on each thing that may not be meant, with what to do."""
    yield from train.lengths.warnings("row")
    yield from train.lengths.unread.notes()
    yield from repeated_rows(train.lengths.hashes, train.rows)
    yield from _sizes(config, read, len(train.rows))
    if held_out is None:
        routed = sum(train.pipeline.rows_of[teacher.name] > 0 for teacher in train.pipeline.teachers)
        some = rows_to_hold_out(len(train.rows), routed, min(64, len(train.rows) // 10))
        these = f", or take some of these by data.held_out_rows={some}" if some else f" ({LEAST_ROWS} a route or more)"
        yield (
            "no held-out rows, so that nothing tells how the student does on other prompts: name some by "
            f"data.eval_path{these}"
        )
        return
    yield from held_out.lengths.warnings("held-out row")
    yield from trained_held_out_rows(train.lengths.hashes, train.rows, held_out.lengths.hashes, held_out.rows)
    yield from _routes(train.pipeline, held_out.pipeline)
    yield from _too_few(config, train.pipeline, held_out.pipeline)
    for evaluator in config.evaluators:
        yield from _of_evaluator(evaluator, routed_held_out, train.pipeline.routed_to)


def _sizes(config: RunConfig, read: RunRows, there: int) -> Iterator[str]:
    """Numbers of the config that the rows do not fill."""
    data, train = config.data, config.train
    size, passes = train.prompt_groups_per_step, there * data.epochs
    steps = -(-passes // size)
    if train.max_steps is not None and train.max_steps > steps:
        yield (
            f"train.max_steps={train.max_steps} is more than the {counted(steps, 'step')} that there are: "
            f"{counted(there, 'row')}, data.epochs={data.epochs}, train.prompt_groups_per_step={size}; "
            f"data.epochs={-(-train.max_steps * size // there)} is enough for it"
        )
    first = 0 if train.max_steps is None else train.max_steps * size
    if data.sort is not None and 0 < first < there and config.teachers[0].share is None:  # of shares, notes tell it
        yield (
            f"data.sort with train.max_steps={train.max_steps}: the first {first:,} of {counted(there, 'row')} in this "
            f"order are trained, and the last {there - first:,} never; train.max_steps={-(-there // size)} "
            "goes through all"
        )
    if there < size:
        of_all = "goes through the rows more than once" if passes > there else f"has {counted(passes, 'row')}"
        yield (
            f"train.prompt_groups_per_step={size} is more than the {counted(there, 'row')} that there are: a step "
            f"{of_all}; train.prompt_groups_per_step={there} trains each once a step"
        )
    held_out = 0 if read.held_out is None else len(read.held_out.rows)
    rows = len(read.train.rows)
    for key, most, found in (("max_rows", data.max_rows, rows), ("max_eval_rows", data.max_eval_rows, held_out)):
        if most is not None and most > found:
            yield f"data.{key}={most} is more than the {counted(found, 'row')} that there are"


def _routes(training: RowPipeline, held_out: RowPipeline) -> Iterator[str]:
    """Teachers that have rows to train on, and none that is held out."""
    for teacher in training.teachers:
        if training.rows_of[teacher.name] and not held_out.rows_of[teacher.name]:
            yield (
                f"teacher {teacher.name!r}: no held-out row is routed to it, so that evaluations say nothing of it; "
                "hold some of its rows out"
            )


def _too_few(config: RunConfig, training: RowPipeline, held_out: RowPipeline) -> Iterator[str]:
    """Teachers of whose rows some are held out, and fewer than tell a change from chance."""
    few = {
        teacher.name: held_out.rows_of[teacher.name]
        for teacher in training.teachers
        if training.rows_of[teacher.name] and 0 < held_out.rows_of[teacher.name] < LEAST_ROWS
    }
    if few and config.evaluators:
        found = "; ".join(f"teacher {name!r} has {counted(rows, 'held-out row')}" for name, rows in few.items())
        yield (
            f"{found}: fewer than {LEAST_ROWS} of a route cannot tell a change from chance, and the verdict will say "
            "so; hold more out"
        )


def _of_evaluator(evaluator: Evaluator, rows: Sequence[RoutedRow], teachers: Sequence[Teacher]) -> Iterator[str]:
    with attribute_to(evaluator, "in notes()"):
        notes = evaluator.notes(rows, teachers)
    if isinstance(notes, str) or not all(isinstance(note, str) for note in notes):
        raise PluginError(
            f"evaluator {evaluator.name!r} ({type(evaluator).__name__}): notes() returned no list of texts"
        )
    yield from (f"evaluator {evaluator.name!r}: {note}" for note in notes)
