"""A run's student alone, open to be sampled or exported: no teacher is asked, and no data is read.

alone = checked_student(config, tell, rank)
async with opened_student(alone, registry):
    before = await alone.completions(requests)
    await alone.load(weights)
    after = await alone.completions(requests)
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from distillkit.config.run_config import RunConfig
from distillkit.context import RunContext, SharedObjects
from distillkit.data.render import PromptSide
from distillkit.errors import InputError, MissingExtraError
from distillkit.events import Notice
from distillkit.loop.opened_plugins import close_plugin, release_on_exit
from distillkit.loop.policy_sync import PolicySync
from distillkit.loop.sample_and_score import sample_all
from distillkit.preflight.config_template_options import options_of_config
from distillkit.preflight.prepared_run import context_for
from distillkit.preflight.turn_ends import require_sampled, resolve_sampling
from distillkit.probe.open_run import probe_folder
from distillkit.ranks import Rank
from distillkit.records import Rollout
from distillkit.registry import Registry
from distillkit.roles.attribution import attribute_to
from distillkit.roles.plugin import CheckReport, Plugin
from distillkit.roles.sampler import Sampler
from distillkit.roles.student import Student
from distillkit.run_directory import checkpoint
from distillkit.run_directory.checkpoint import day_of
from distillkit.run_directory.directory import run_directory
from distillkit.run_directory.identity import require_same_student
from distillkit.run_directory.saved_run import SavedWeights
from distillkit.tokenizer import vocabulary_size
from distillkit.types import SampleKey, SampleRequest, SamplingParams


@dataclass(frozen=True, slots=True)
class StudentAlone:
    """A student and its sampler, both checked."""

    config: RunConfig
    side: PromptSide
    sampling: SamplingParams
    """How completions are sampled, with every id that ends one."""
    contexts: dict[str, RunContext]
    """What each plugin is given, by its key."""
    sampler: Sampler | None
    """None: nothing is sampled, and a server that samples need not be there."""

    @property
    def plugins(self) -> dict[str, Plugin]:
        """Student and sampler, by the key of a config."""
        return _by_key(self.config.student, self.sampler)

    async def load(self, weights: SavedWeights) -> None:
        """Take these weights, a checkpoint's, and sample from them; an export, the config starts from already."""
        if weights.state is None:
            return
        require_same_student(weights.state.identity, self.config)
        await checkpoint.load(weights.files, self.config.student, {})
        await self.publish(weights.step)

    async def publish(self, step: int) -> None:
        """Have the weights of `step` sample from now on."""
        if self.sampler is not None:
            await PolicySync(self.config.student, self.sampler, {}).publish(step, ())

    async def completions(self, requests: Sequence[SampleRequest]) -> dict[SampleKey, Rollout]:
        """The completions that came, by key. Raises RunFailedError if none did."""
        if self.sampler is None:
            raise RuntimeError("this student was checked to be exported, and is asked for completions")
        found, _ = await sample_all(self.sampler, requests, vocabulary_size(self.side.tokenizer))
        return found

    @property
    def merge_context(self) -> RunContext:
        """The run as the student sees it that writes a whole model."""
        return replace(self.contexts["student"], tokenizer=self.side.tokenizer, stop_ids=self.sampling.stop_ids)


def checked_student(
    config: RunConfig,
    tell: Callable[[Notice], None],
    rank: Rank,
    weights: SavedWeights | None = None,
    *,
    samples: bool = True,
) -> StudentAlone:
    """Check student and sampler, as a run does. Raises InputError.

    `weights` are those that will be loaded: chat templates write the day on which they began. Unless it `samples`, the
    student is loaded and exported, and no sampler is asked for anything.
    """
    student, shared = config.student, SharedObjects()
    sampler = _sampler_of(student) if samples else None
    today = config.sampling.template_date or (None if weights is None else day_of(weights.files))
    keys = _by_key(student, sampler)
    contexts = {key: context_for(key, config, shared, tell, rank, today, trains=False) for key in keys}
    for key, plugin in keys.items():
        plugin.declare(contexts[key])
    reports = [_checked(plugin, contexts[key], student) for key, plugin in keys.items()]
    missing = list(dict.fromkeys(report.missing for report in reports if report is not None and report.missing))
    if missing:
        raise MissingExtraError("\n".join(missing))
    run, limit = contexts["student"], "" if reports[0] is None else reports[0].length_limit
    options = options_of_config(config.sampling.chat_template_kwargs, "sampling")
    side = PromptSide(student.tokenizer(run), options, student.context_length(run), limit)
    sampling = resolve_sampling(config.sampling, side)
    if sampler is not None:
        require_sampled(sampler, sampling, side.tokenizer)
    return StudentAlone(config, side, sampling, contexts, sampler)


def _sampler_of(student: Student) -> Sampler:
    sampler = student if student.sampler is None else student.sampler
    if not isinstance(sampler, Sampler):
        raise InputError(f"student {student.name!r} cannot sample by itself; choose student.sampler")
    return sampler


def _checked(plugin: Plugin, context: RunContext, student: Student) -> CheckReport | None:
    """What a plugin reports. An InputError of another sampler says how to do without it, where the student can."""
    try:
        return plugin.check(context)
    except InputError as error:
        if plugin is not student and isinstance(student, Sampler):
            error.add_note(f"without sampler {plugin.name!r}, let the student sample itself: student.sampler=null")
        raise


def _by_key(student: Student, sampler: Sampler | None) -> dict[str, Plugin]:
    found: dict[str, Plugin] = {"student": student}
    if sampler is not None and student.sampler is not None:
        found["student.sampler"] = sampler
    return found


@asynccontextmanager
async def opened_student(alone: StudentAlone, registry: Registry) -> AsyncIterator[None]:
    """Open student and sampler as the student starts, with the policy published, and close them behind the block.

    They write into a temporary folder of the run's directory, as a probe does.
    """
    run_dir = run_directory(alone.config)
    with probe_folder(run_dir, alone.plugins.values(), registry) as folder:
        async with AsyncExitStack() as stack:
            for key, plugin in alone.plugins.items():
                context = alone.contexts[key]
                release_on_exit(stack, context.shared, key)
                stack.push_async_callback(close_plugin, plugin)
                tokenizer, stop_ids = alone.side.tokenizer, alone.sampling.stop_ids
                context = replace(context, run_dir=folder, outer_dir=run_dir, tokenizer=tokenizer, stop_ids=stop_ids)
                with attribute_to(plugin, "while it was opened"):
                    await plugin.open(context)
            await alone.publish(0)
            yield
