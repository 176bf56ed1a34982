"""How much work a run is, at most: measured on its rows, before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from distillkit.config.run_config import RunConfig
from distillkit.data.indexed_rows import InBatches
from distillkit.data.render import Renderer, RoutedRow, RowIds
from distillkit.data.row_pipeline import RowPipeline
from distillkit.errors import RowError
from distillkit.events import Plan
from distillkit.prompt_check.prompt_check import PromptCheck
from distillkit.types import Row


class PromptLengths:
    """Prompt lengths, gathered row by row in flat memory."""

    def __init__(self, pipeline: RowPipeline, renderer: Renderer) -> None:
        """No rows and no tokens so far; rows are routed by `pipeline` and rendered by `renderer`."""
        self._pipeline = pipeline
        self._renderer = renderer
        self._check = PromptCheck(renderer)
        self.rows = 0
        self.student = LengthTotals()
        self.teachers = LengthTotals()
        self.longest_of_a_teacher = 0

    @property
    def count(self) -> InBatches:
        """Render rows and add their lengths; a RowError for one that is too long."""
        return InBatches(self._count)

    def _count(self, rows: Sequence[Row]) -> list[RowError | None]:
        routed = [self._pipeline.routed(row) for row in rows]
        rendered = iter(self._renderer.ids([row for row in routed if isinstance(row, RoutedRow)]))
        return [row if isinstance(row, RowError) else self._add(row, next(rendered)) for row in routed]

    def notes(self, of: str) -> list[str]:
        """What was found about the rows and their prompts that does not stop the run."""
        return self._pipeline.notes(of) + self._check.notes(of)

    def _add(self, routed_row: RoutedRow, ids: RowIds | RowError) -> RowError | None:
        problem = ids if isinstance(ids, RowError) else self._check.problem(routed_row)
        if problem is not None or isinstance(ids, RowError):
            return problem
        self.rows += 1
        self.student.add(len(ids.student))
        lengths = [len(theirs) for theirs in ids.teachers.values()]
        self.teachers.add(sum(lengths))
        self.longest_of_a_teacher = max(self.longest_of_a_teacher, *lengths)
        return None


@dataclass(slots=True)
class LengthTotals:
    """Token counts of many prompts."""

    total: int = 0
    longest: int = 0

    def add(self, tokens: int) -> None:
        """Count a prompt of this many tokens."""
        self.total += tokens
        self.longest = max(self.longest, tokens)

    def at_most(self, rows: int, of: int) -> int:
        """The tokens of `rows` prompts, taken in turns from the `of` that were counted; a bound if they stop early."""
        return self.total * rows // of if rows % of == 0 else min(self.longest * rows, self.total * -(-rows // of))


def make_plan(config: RunConfig, lengths: PromptLengths, held_out: PromptLengths | None) -> Plan:
    """The plan of a run: upper bounds of its rows, steps and tokens."""
    train, new = config.train, config.sampling.max_completion_tokens
    rows = lengths.rows * config.data.epochs
    steps = -(-rows // train.prompt_groups_per_step)
    if train.max_steps is not None and train.max_steps < steps:
        steps, rows = train.max_steps, train.max_steps * train.prompt_groups_per_step
    each = config.sampling.completions_per_prompt
    evaluations = _evaluations(config, steps) if held_out is not None else 0
    eval_rows = held_out.rows if held_out is not None else 0
    measured = [lengths] if held_out is None else [lengths, held_out]
    return Plan(
        rows=rows,
        steps=steps,
        optimizer_steps=steps * substeps_of(config),
        eval_rows=eval_rows,
        evaluations=evaluations,
        completions=rows * each,
        step_rows=min(train.prompt_groups_per_step, rows),
        step_completions=min(train.prompt_groups_per_step, rows) * each,
        longest_prompt=max(each_set.student.longest for each_set in measured),
        longest_teacher_prompt=max(each_set.longest_of_a_teacher for each_set in measured),
        new_tokens=new,
        sample_tokens=rows * each * new,
        score_tokens=each * (rows * new + lengths.teachers.at_most(rows, lengths.rows)),
        train_tokens=each * (rows * new + lengths.student.at_most(rows, lengths.rows)),
        eval_sample_tokens=evaluations * eval_rows * new,
        eval_score_tokens=evaluations * (eval_rows * new + (held_out.teachers.total if held_out is not None else 0)),
    )


def substeps_of(config: RunConfig) -> int:
    """Optimizer steps of a step, at most: the completions of a row are never divided."""
    return min(config.train.num_substeps, config.train.prompt_groups_per_step)


def _evaluations(config: RunConfig, steps: int) -> int:
    """Before, after, and every `eval_every` steps between."""
    if not config.evaluators:
        return 0
    every = config.train.eval_every
    return 2 + ((steps - 1) // every if every else 0)
