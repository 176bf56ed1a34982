"""Everything that can be found out about a run before anything is loaded, created or paid for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from distillkit.config.run_config import RunConfig
from distillkit.context import RunContext, SharedObjects
from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.render import PromptSide, Renderer
from distillkit.data.row_format.recognition import ReadAs
from distillkit.data.row_pipeline import RowPipeline
from distillkit.data.training_order import TrainingOrder
from distillkit.data.turn_end_maps import TurnEndMaps
from distillkit.events import Notice
from distillkit.loop.wanted import Wanted
from distillkit.memory import PlannedDevice
from distillkit.preflight.check_reports import check_reports, missing_in, missing_said_first
from distillkit.preflight.compatibility import RunPlugins, plugins_of, require_capabilities, require_fitting
from distillkit.preflight.config_template_options import options_of_config, require_read_options, unread_by_teachers
from distillkit.preflight.evaluator_requests import with_requests
from distillkit.preflight.idle_settings import idle_settings
from distillkit.preflight.memory_fit import MemoryCheck, require_memory
from distillkit.preflight.other_prompts import other_prompts
from distillkit.preflight.overlong_prompts import require_room
from distillkit.preflight.plan import make_plan, substeps_of
from distillkit.preflight.rank_agreement import must_agree
from distillkit.preflight.route_shares import share_notes
from distillkit.preflight.row_warnings import row_warnings
from distillkit.preflight.run_rows import MeasuredRows, RunRows, read_rows
from distillkit.preflight.sampling_warnings import sampling_warnings
from distillkit.preflight.turn_ends import resolve_ends
from distillkit.preflight.unopened_turns import unopened_turns
from distillkit.ranks import ONLY, Rank
from distillkit.registry import Registry
from distillkit.roles.attribution import attribute_to
from distillkit.roles.loss import read_by
from distillkit.roles.plugin import CheckReport
from distillkit.run_plan import Plan
from distillkit.tokenizer import require_compatible
from distillkit.types import Prompts, RoutedRow, Row, SamplingParams


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run that can start: its data is valid, its plugins fit together, its size is known."""

    config: RunConfig
    registry: Registry
    plugins: RunPlugins
    shared: SharedObjects
    pipeline: RowPipeline
    renderer: Renderer
    sampling: SamplingParams
    """How completions are sampled, with every id that ends one."""
    turn_ends: TurnEndMaps
    """How teachers whose turns end otherwise read the student's completions."""
    dataset: IndexedRows
    order: TrainingOrder
    """In which its rows are trained."""
    read_as: ReadAs
    """What is made of the columns of its rows."""
    eval_rows: tuple[Row, ...]
    plan: Plan
    reports: Mapping[str, CheckReport]
    notices: tuple[Notice, ...]
    """What is to be said: notes on what was set so, and warnings of what is likely wrong."""
    memory: MemoryCheck
    """What it will hold on each device, against what is there."""
    rank: Rank
    today: date
    """What chat templates take for today."""
    trains: bool = True
    """Whether it is prepared to train, or to measure alone."""

    @property
    def ending_ids(self) -> frozenset[int]:
        """The ids that end a completion of the student, each its last token then."""
        return frozenset(self.sampling.stop_ids)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said, of either kind."""
        return tuple(notice.message for notice in self.notices)

    @property
    def missing(self) -> tuple[str, ...]:
        """What has to be installed before the run, one line each."""
        return missing_in(self.reports)

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
    user: str,
    config: RunConfig,
    shared: SharedObjects,
    tell: Callable[[Notice], None],
    rank: Rank = ONLY,
    today: date | None = None,
    planned_device: PlannedDevice | None = None,
    *,
    trains: bool = True,
) -> RunContext:
    """The run as the plugin at config key `user` sees it, before the run directory is there."""
    teachers = tuple(teacher.teacher for teacher in config.teachers)
    day = today or config.sampling.template_date or date.today()
    run = RunContext(user, config.name, config.seed, None, tell, shared, teachers=teachers, rank=rank, today=day)
    wanted = Wanted.by(config)
    run = replace(run, scorer_needs=wanted.of_scorers, sampler_needs=wanted.of_sampler, loss_reads=read_by(config.loss))
    if rank.count > 1:
        run = replace(run, must_agree=must_agree(config))
    return replace(run, planned_device=planned_device, trains=trains)


def prepare_run(
    config: RunConfig,
    registry: Registry,
    tell: Callable[[Notice], None],
    rank: Rank = ONLY,
    began: date | None = None,
    show_rows: Callable[[RunRows], None] = lambda rows: None,
    planned_device: PlannedDevice | None = None,
    *,
    trains: bool = True,
) -> PreparedRun:
    """Check config, data, plugins, tokenizers, lengths and memory, in the order of what they cost.

    `began`: the day on which a run began that is to go on. `planned_device`: a card in the place of this machine's.
    `show_rows` hears of the rows before a model is asked. `trains`: whether the run is to train, which takes memory.

    Raises:
        InputError: (or a child) naming everything that is wrong at the first stage where something is.
    """
    rows = read_rows(config, plugins := plugins_of(config, registry))
    show_rows(rows)
    require_fitting(config, plugins, rank)
    shared, today = SharedObjects(), config.sampling.template_date or began or date.today()
    said = (config, shared, tell, rank, today, planned_device)
    contexts = {user: context_for(user, *said, trains=trains) for user in plugins.by_key}
    reports = check_reports(plugins, contexts)
    with missing_said_first(reports):
        require_capabilities(config, plugins.sampler)  # again, of what servers said
        renderer = make_renderer(config, contexts, reports)
    sampling, turn_ends = resolve_ends(config, plugins.sampler, renderer)
    train, held_out = rows.measured(renderer)
    routed = () if held_out is None else held_out.routed()
    plan = _plan(config, train, held_out, routed)
    memory = require_memory(plugins.by_key, contexts, plan, reports) if trains else MemoryCheck({}, {}, {})
    warnings = [*rows.warnings(), *row_warnings(config, rows, train, held_out, routed)]
    warnings += [*_warnings(config, renderer, train.pipeline, sampling), *memory.warnings()]
    notices = _notices(_notes(renderer, rows, train, held_out, plan), warnings)
    read = (train.rows, train.order, rows.train.read_as, tuple(routed_row.row for routed_row in routed))
    found = (train.pipeline, renderer, sampling, turn_ends, *read, plan, reports, notices, memory)
    return PreparedRun(config, registry, plugins, shared, *found, rank, today, trains)


def _plan(config: RunConfig, train: MeasuredRows, held_out: MeasuredRows | None, routed: Sequence[RoutedRow]) -> Plan:
    lengths = None if held_out is None else held_out.lengths
    return with_requests(make_plan(config, train.order, train.lengths, lengths), config, routed, lengths)


def make_renderer(
    config: RunConfig, contexts: Mapping[str, RunContext], reports: Mapping[str, CheckReport]
) -> Renderer:
    """Read the tokenizers, and refuse a teacher whose ids mean something else."""
    run = contexts["student"]
    options = options_of_config(config.sampling.chat_template_kwargs, "sampling")
    with attribute_to(config.student, "in tokenizer() or context_length()"):
        tokenizer, longest = config.student.tokenizer(run), config.student.context_length(run)
        student = PromptSide(tokenizer, options, longest, reports["student"].length_limit)
    sides: dict[str, PromptSide] = {}
    for section in config.teachers:
        teacher = section.teacher
        user = f"teachers.{teacher.name}.scorer"
        run = contexts[user]
        with attribute_to(section.scorer, "in tokenizer() or context_length()"):
            tokenizer = section.scorer.tokenizer(run) or student.tokenizer
            longest = section.scorer.context_length(run)
        if tokenizer is not student.tokenizer:
            require_compatible(student.tokenizer, tokenizer, teacher.name)
        options = student.template_options
        if teacher.chat_template_kwargs is not None:
            options = options_of_config(teacher.chat_template_kwargs, f"teachers.{teacher.name}")
        sides[teacher.name] = PromptSide(tokenizer, options, longest, reports[user].length_limit)
    renderer = Renderer(student, sides, config.sampling.max_completion_tokens)
    require_read_options(config, renderer)
    require_room(renderer)
    return renderer


def _notices(notes: Iterable[str], warnings: Iterable[str]) -> tuple[Notice, ...]:
    return (*map(Notice, notes), *(Notice(warning, "warning") for warning in warnings))


def _notes(
    renderer: Renderer, rows: RunRows, train: MeasuredRows, held_out: MeasuredRows | None, plan: Plan
) -> Iterator[str]:
    """What config and rows have set so, whether or not it was noticed."""
    yield from rows.notes()
    yield from train.lengths.notes("row")
    yield from share_notes(train.order, plan.rows)
    yield from idle_settings(train.pipeline.config, train.pipeline, train.lengths.rows, renderer.student.tokenizer)
    if held_out is not None:
        yield from held_out.lengths.notes("held-out row")


def _warnings(config: RunConfig, renderer: Renderer, pipeline: RowPipeline, sampling: SamplingParams) -> Iterator[str]:
    """What is likely not meant so of teachers, steps and sampling."""
    yield from unopened_turns(renderer)
    yield from other_prompts(renderer)
    yield from unread_by_teachers(config, renderer)
    for teacher in pipeline.routed_to:
        if not pipeline.rows_of[teacher.name]:
            yield f"teacher {teacher.name!r}: no row is routed to it; it is loaded and never asked"
    train = config.train
    if train.num_substeps > train.prompt_groups_per_step:
        yield (
            f"train.num_substeps={train.num_substeps} is more than the {train.prompt_groups_per_step} rows of a step "
            "(train.prompt_groups_per_step); the completions of a row stay together, so a step has as many optimizer "
            "steps as rows"
        )
    yield from sampling_warnings(config, sampling)
