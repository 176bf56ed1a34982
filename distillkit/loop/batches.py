"""Rows to windows: which rows a step trains, and what is asked of sampler and scorers for them."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from distillkit.loop.outcomes import WindowRequests
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.seeds import derive_seed
from distillkit.types import Prompts, Row, SampleKey, SampleRequest

HEAD_START_S = 0.05
"""Rendering takes Python's lock: a sampler in this process, which has just been asked, begins before."""


@dataclass(frozen=True, slots=True)
class RowBatches:
    """The run's rows in training order. A run is a function of its config, its data and its seed."""

    prepared: PreparedRun

    def groups(self, first_step: int, rows_done: int) -> Iterator[list[Row]]:
        """The rows of each step from `first_step` (counted from 1) to the last, behind those that were settled."""
        size = self.prepared.config.train.prompt_groups_per_step
        rows = self._rows(skip=rows_done)
        for _ in range(first_step, self.prepared.plan.steps + 1):
            yield list(islice(rows, size))

    def _rows(self, skip: int) -> Iterator[Row]:
        config, dataset = self.prepared.config, self.prepared.dataset
        for epoch in range(skip // len(dataset), config.data.epochs):
            order = dataset.order(epoch, config.seed, shuffle=config.data.shuffle)
            done = max(0, skip - epoch * len(dataset))
            for index in order[done:]:
                yield dataset.row(int(index), epoch)

    def render(self, rows: Sequence[Row]) -> list[Prompts]:
        """Route and render rows. Raises the first's RowError."""
        return self.prepared.pipeline.render_all(rows, self.prepared.renderer)

    def work(self, prompts: Sequence[Prompts], policy_version: int) -> WindowRequests:
        """What is to be drawn from which policy."""
        requests = tuple(request for one in prompts for request in self._requests(one))
        return WindowRequests({(one.row.row_id, one.row.epoch): one for one in prompts}, requests, policy_version)

    def _requests(self, prompts: Prompts) -> Iterator[SampleRequest]:
        config = self.prepared.config
        for sample in range(config.sampling.completions_per_prompt):
            key = SampleKey(prompts.row.row_id, prompts.row.epoch, sample)
            seed = derive_seed(config.seed, key.epoch, key.row_id, sample)
            yield SampleRequest(key, prompts.student, seed, config.sampling.params)


@dataclass(slots=True)
class Prefetcher:
    """The steps' prompts, in order; the next step's can be rendered while a device or a server computes."""

    feed: RowBatches
    groups: Iterator[list[Row]]
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _next: asyncio.Task[list[Prompts] | None] | None = None

    def prepare(self) -> asyncio.Task[list[Prompts] | None]:
        """Render the next step's rows in a moment; what is wrong with them is told by `take`."""
        if self._next is None:
            self._wanted.clear()
            self._next = asyncio.create_task(self._render())
        return self._next

    async def take(self) -> list[Prompts] | None:
        """The next step's prompts; None behind the last step. Raises RowError."""
        task, self._next = self.prepare(), None
        self._wanted.set()
        return await task

    async def close(self) -> None:
        """Nobody takes what was prepared."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)

    async def _render(self) -> list[Prompts] | None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), HEAD_START_S)
        rows = next(self.groups, None)
        return None if rows is None else self.feed.render(rows)
