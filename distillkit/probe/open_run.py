"""A prepared run with its plugins open and a policy published, to measure and not to train.

Whoever wants to sample and score a few rows for real, without a run, does so:

    prepared = prepare_run(config, registry, tell, rank)
    async with opened(prepared, tell) as run:
        prompts = await asyncio.to_thread(spread_rows, prepared, 64)
        outcomes = await run.sampled_and_scored(prompts, purpose="diagnose")
        outcomes.scored  # ScoredRollouts, in the order of `prompts`
        outcomes.lost    # what could not be sampled or scored, and why

Nothing of a run that the directory holds is touched: plugins write into the folder `.probe` in it, which is removed.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from distillkit.errors import MissingExtraError
from distillkit.events import Notice, PhaseProgress
from distillkit.loop.opened_plugins import opened_plugins
from distillkit.loop.outcomes import Outcomes
from distillkit.loop.policy_sync import PolicySync
from distillkit.loop.wanted import Wanted
from distillkit.loop.window import Scheduler
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.probe.rows import NOTHING_MORE, window_requests
from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin
from distillkit.run_directory.checkpoint import load
from distillkit.run_directory.directory import run_directory
from distillkit.run_directory.own_folder import own_folder
from distillkit.run_directory.saved_run import SavedWeights
from distillkit.tokenizer import vocabulary_size
from distillkit.types import Prompts


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run whose plugins are open, with the student's weights published."""

    prepared: PreparedRun
    scheduler: Scheduler
    policy_version: int
    """The steps that those weights were trained for: 0 as the student starts."""

    async def sampled_and_scored(
        self, prompts: list[Prompts], purpose: str, each: int = 1, wanted: Wanted = NOTHING_MORE
    ) -> Outcomes:
        """`each` completions a row, sampled as the run would and scored by the teachers of its route.

        `purpose` is part of their seeds, `wanted` what they and their scores are to hold besides. Raises whatever a
        plugin raised.
        """
        return await self.scheduler.start(window_requests(self.prepared, prompts, purpose, each, wanted)).finished()


@asynccontextmanager
async def opened(
    prepared: PreparedRun,
    tell: Callable[[Notice], None],
    progress: Callable[[PhaseProgress], None] = lambda event: None,
    weights: SavedWeights | None = None,
) -> AsyncIterator[OpenRun]:
    """Open the plugins but the sinks, publish the student's weights, and close everything behind the block.

    Args:
        prepared: what `prepare_run` gave; a run can be opened once.
        tell: what plugins tell the user.
        progress: hears of every completion and score of `sampled_and_scored`.
        weights: what the student has in the place of what it starts with; an export, its config starts from already.

    Raises:
        MissingExtraError: if something has to be installed first.
        InputError: if a probe that was killed in the run's directory left what cannot be cleaned up.
    """
    if prepared.missing:
        raise MissingExtraError("\n".join(prepared.missing))
    run_dir, plugins = run_directory(prepared.config), prepared.plugins
    with probe_folder(run_dir, plugins.by_key.values(), prepared.registry) as folder:
        async with opened_plugins(prepared, folder, tell, outer_dir=run_dir):
            if weights is not None and not weights.exported:
                await load(weights.files, prepared.config.student, plugins.by_key)
            version = 0 if weights is None else weights.step
            policy = PolicySync(prepared.config.student, plugins.sampler, plugins.scorers)
            await policy.publish(version, (), resumed=version > 0)
            vocabulary = vocabulary_size(prepared.renderer.student.tokenizer)
            scheduler = Scheduler(plugins.sampler, plugins.scorers, progress, vocabulary, prepared.turn_ends)
            yield OpenRun(prepared, scheduler, version)


@contextmanager
def probe_folder(run_dir: Path, used: Iterable[Plugin], registry: Registry) -> Iterator[Path]:
    """The folder that plugins may write in, in the run's directory: servers may see that alone. It is gone behind.

    `used` are the plugins that will be opened. Raises InputError as `opened`.
    """
    plugins = {type(plugin) for plugin in used}
    with own_folder(run_dir, plugins, {info.cls for info in registry.infos()}) as folder:
        yield folder
