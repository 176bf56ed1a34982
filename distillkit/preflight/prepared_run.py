"""Everything that can be found out about a run before anything is loaded, created or paid for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distillkit.config.run_config import RunConfig
from distillkit.context import RunContext, SharedObjects
from distillkit.data.dataset import Dataset
from distillkit.data.render import PromptSide, Renderer
from distillkit.data.row_pipeline import RowPipeline
from distillkit.events import Plan
from distillkit.preflight.compatibility import (
    RunPlugins,
    plugins_of,
    require_capabilities,
    require_evaluations,
    require_loss,
    require_spreading,
)
from distillkit.preflight.config_template_options import options_of_config, require_read_options, unread_by_teachers
from distillkit.preflight.plan import PromptLengths, make_plan, substeps_of
from distillkit.ranks import ONLY, Rank
from distillkit.registry import Registry
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import require_compatible
from distillkit.types import Prompts, Row


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run that can start: its data is valid, its plugins fit together, its size is known."""

    config: RunConfig
    registry: Registry
    plugins: RunPlugins
    shared: SharedObjects
    pipeline: RowPipeline
    renderer: Renderer
    dataset: Dataset
    eval_rows: tuple[Row, ...]
    plan: Plan
    reports: Mapping[str, CheckReport]
    notes: tuple[str, ...]
    rank: Rank

    @property
    def missing(self) -> tuple[str, ...]:
        """What has to be installed before the run, one line each."""
        return tuple(dict.fromkeys(report.missing for report in self.reports.values() if report.missing))

    def continued(self, step: int, rows_done: int) -> "PreparedRun":
        """The same for a run that goes on: a step before may have held fewer rows, so more may be left than planned."""
        left = len(self.dataset) * self.config.data.epochs - rows_done
        steps = step + max(0, -(-left // self.config.train.prompt_groups_per_step))
        most = self.config.train.max_steps
        steps = steps if most is None else min(steps, most)
        plan = replace(self.plan, steps=steps, optimizer_steps=steps * substeps_of(self.config))
        return replace(self, plan=plan)

    def render(self, rows: Sequence[Row]) -> list[Prompts]:
        """Rows' routes and prompts as token ids, in their order. Raises the first's RowError."""
        return self.pipeline.render(rows, self.renderer)


def context_for(
    user: str, config: RunConfig, shared: SharedObjects, notify: Callable[[str], None], rank: Rank = ONLY
) -> RunContext:
    """The run as the plugin at config key `user` sees it, before the run directory is there."""
    teachers = tuple(teacher.teacher for teacher in config.teachers)
    return RunContext(user, config.name, config.seed, None, notify, shared, teachers=teachers, rank=rank)


def prepare_run(config: RunConfig, registry: Registry, notify: Callable[[str], None], rank: Rank = ONLY) -> PreparedRun:
    """Check config, data, plugins, tokenizers and lengths, in the order of what they cost.

    Raises:
        InputError: (or a child) naming everything that is wrong at the first stage where something is.
    """
    plugins = plugins_of(config)
    pipeline, eval_pipeline = RowPipeline.of(config), RowPipeline.of(config)
    dataset = Dataset(Path(config.data.path), config.data.max_rows)
    dataset.validate(pipeline.count)
    eval_dataset = None
    if config.data.eval_path is not None:
        eval_dataset = Dataset(Path(config.data.eval_path), config.data.max_eval_rows)
        eval_dataset.validate(eval_pipeline.count)
    require_loss(config, rank)
    require_spreading(config.student, rank)
    require_evaluations(config.evaluators, plugins)
    shared = SharedObjects()
    contexts = {user: context_for(user, config, shared, notify, rank) for user in plugins.by_key}
    for user, plugin in plugins.by_key.items():
        plugin.declare(contexts[user])
    reports = {user: plugin.check(contexts[user]) or CheckReport() for user, plugin in plugins.by_key.items()}
    require_capabilities(config)
    renderer = make_renderer(config, contexts)
    lengths = PromptLengths(pipeline, renderer)
    dataset.validate(lengths.count)
    held_out = None
    if eval_dataset is not None:
        held_out = PromptLengths(eval_pipeline, renderer)
        eval_dataset.validate(held_out.count)
    notes = (*lengths.notes("rows"), *(held_out.notes("held-out rows") if held_out is not None else ()))
    notes += (*unread_by_teachers(config, renderer), *_notes(config, pipeline))
    eval_rows = tuple(eval_dataset.rows()) if eval_dataset is not None else ()
    plan = make_plan(config, lengths, held_out)
    return PreparedRun(
        config, registry, plugins, shared, pipeline, renderer, dataset, eval_rows, plan, reports, notes, rank
    )


def make_renderer(config: RunConfig, contexts: Mapping[str, RunContext]) -> Renderer:
    """Read the tokenizers, and refuse a teacher whose ids mean something else."""
    run = contexts["student"]
    options = options_of_config(config.sampling.chat_template_kwargs, "sampling")
    student = PromptSide(config.student.tokenizer(run), options, config.student.context_length(run))
    sides: dict[str, PromptSide] = {}
    for section in config.teachers:
        teacher = section.teacher
        run = contexts[f"teachers.{teacher.name}.scorer"]
        tokenizer = section.scorer.tokenizer(run)
        if tokenizer is None:
            tokenizer = student.tokenizer
        if tokenizer is not student.tokenizer:
            require_compatible(student.tokenizer, tokenizer, teacher.name)
        options = student.template_options
        if teacher.chat_template_kwargs is not None:
            options = options_of_config(teacher.chat_template_kwargs, f"teachers.{teacher.name}")
        sides[teacher.name] = PromptSide(tokenizer, options, section.scorer.context_length(run))
    renderer = Renderer(student, sides, config.sampling.max_completion_tokens)
    require_read_options(config, renderer)
    return renderer


def _notes(config: RunConfig, pipeline: RowPipeline) -> Iterator[str]:
    for teacher in pipeline.teachers:
        if not pipeline.rows_of[teacher.name]:
            yield f"teacher {teacher.name!r}: no row is routed to it; it is loaded and never asked"
    train = config.train
    if train.num_substeps > train.prompt_groups_per_step:
        yield (
            f"train.num_substeps={train.num_substeps} is more than the {train.prompt_groups_per_step} rows of a step "
            "(train.prompt_groups_per_step); the completions of a row stay together, so a step has as many optimizer "
            "steps as rows"
        )
    if not config.sampling.params.is_untouched:
        yield (
            "sampling with temperature, top_p or top_k other than 1, 1, 0: logprobs are those of the untouched policy, "
            "so the ratio's denominator is not the distribution that sampled (docs/concepts.md)"
        )
