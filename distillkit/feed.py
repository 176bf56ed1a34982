"""Rows to windows: which rows a step trains, and what is asked of sampler and scorers for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from distillkit.preflight import Preflight
from distillkit.schedule import Work
from distillkit.seeds import derive_seed
from distillkit.types import Prompts, Row, SampleKey, SampleRequest


@dataclass(frozen=True, slots=True)
class Feed:
    """The run's rows in training order. A run is a function of its config, its data and its seed."""

    flight: Preflight

    def groups(self, first_step: int, rows_done: int) -> Iterator[list[Row]]:
        """The rows of each step from `first_step` (counted from 1) to the last, behind those that were settled."""
        size = self.flight.config.train.prompt_groups_per_step
        rows = self._rows(skip=rows_done)
        for _ in range(first_step, self.flight.plan.steps + 1):
            yield list(islice(rows, size))

    def _rows(self, skip: int) -> Iterator[Row]:
        config, dataset = self.flight.config, self.flight.dataset
        for epoch in range(skip // len(dataset), config.data.epochs):
            order = dataset.order(epoch, config.seed, shuffle=config.data.shuffle)
            done = max(0, skip - epoch * len(dataset))
            for index in order[done:]:
                yield dataset.row(int(index), epoch)

    def work(self, rows: Sequence[Row], policy_version: int) -> Work:
        """Route and render rows, and say what is to be drawn from which policy."""
        prompts = self.flight.intake.render_all(rows, self.flight.renderer)
        requests = tuple(request for one in prompts for request in self._requests(one))
        return Work({(one.row.row_id, one.row.epoch): one for one in prompts}, requests, policy_version)

    def _requests(self, prompts: Prompts) -> Iterator[SampleRequest]:
        config = self.flight.config
        for sample in range(config.sampling.completions_per_prompt):
            key = SampleKey(prompts.row.row_id, prompts.row.epoch, sample)
            seed = derive_seed(config.seed, key.epoch, key.row_id, sample)
            yield SampleRequest(key, prompts.student, seed, config.sampling.params)
