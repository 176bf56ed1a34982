"""Rows to windows: which rows a step trains, and what is asked of sampler and scorers for them."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from distillkit.loop.outcomes import WindowRequests
from distillkit.loop.wanted import Wanted
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.seeds import derive_seed
from distillkit.types import Prompts, Row, SampleKey, SampleRequest

HEAD_START_SECONDS = 0.05
"""A sampler in this process begins, which is a call of PyTorch after another, before the next step's rows are rendered:
both need Python, of which there is one."""


@dataclass(frozen=True, slots=True)
class RowBatches:
    """The run's rows in training order. A run is a function of its config, its data and its seed."""

    prepared: PreparedRun

    def groups(self, first_step: int, rows_done: int) -> Iterator[list[Row]]:
        """The rows of each step from `first_step` (counted from 1) to the last, behind those that were settled."""
        size = self.prepared.config.train.prompt_groups_per_step
        rows = self.rows(skip=rows_done)
        for _ in range(first_step, self.prepared.plan.steps + 1):
            yield list(islice(rows, size))

    def rows(self, skip: int = 0) -> Iterator[Row]:
        """The rows of the run in training order, behind the first `skip`; read lazily."""
        for position, epoch in self.prepared.order.positions(skip):
            yield self.prepared.dataset.row(position, epoch)

    def requests(self, prompts: Sequence[Prompts], policy_version: int) -> WindowRequests:
        """What is to be sampled from which policy, and scored."""
        wanted = Wanted.by(self.prepared.config)
        samples = tuple(request for each in prompts for request in self._samples(each, wanted.of_sampler))
        by_row = {(row_prompts.row.row_id, row_prompts.row.epoch): row_prompts for row_prompts in prompts}
        return WindowRequests(by_row, samples, policy_version, wanted)

    def _samples(self, prompts: Prompts, wanted: Mapping[str, int]) -> Iterator[SampleRequest]:
        config = self.prepared.config
        for sample in range(config.sampling.completions_per_prompt):
            key = SampleKey(prompts.row.row_id, prompts.row.epoch, sample)
            seed = derive_seed(config.seed, key.epoch, key.row_id, sample)
            yield SampleRequest(key, prompts.student, seed, self.prepared.sampling, wanted)


@dataclass(slots=True)
class Prefetcher:
    """The steps' prompts, in order; the next step's are rendered in a thread while the step in hand goes on."""

    render: Callable[[Sequence[Row]], list[Prompts]]
    """Rows to prompts; called in a thread, one call at a time. It may raise RowError."""
    groups: Iterator[list[Row]]
    """The rows of each step."""
    _next: asyncio.Task[list[Prompts] | None] | None = None
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether somebody waits for the next step's, or nobody will any more."""

    def prepare(self) -> asyncio.Task[list[Prompts] | None]:
        """Begin soon to render the next step's rows; what is wrong with them is raised by `take`."""
        if self._next is None:
            self._wanted.clear()
            self._next = asyncio.create_task(self._rendered())
        return self._next

    async def take(self) -> list[Prompts] | None:
        """The next step's prompts; None behind the last step. Raises RowError."""
        task = self.prepare()
        self._wanted.set()
        try:
            return await asyncio.shield(task)
        finally:
            if task.done():  # else the run is cancelled, and `close` waits for the thread
                self._next = None

    async def close(self) -> None:
        """Wait for what nobody takes any more: a thread cannot be cancelled, and it reads the run's files."""
        self.groups = iter(())
        self._wanted.set()
        if self._next is not None:
            await asyncio.gather(self._next, return_exceptions=True)

    async def _rendered(self) -> list[Prompts] | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEAD_START_SECONDS):  # `wait_for` loses a cancellation that comes as it returns
                await self._wanted.wait()
        return await asyncio.to_thread(self._render_next)

    def _render_next(self) -> list[Prompts] | None:
        rows = next(self.groups, None)
        return None if rows is None else self.render(rows)
