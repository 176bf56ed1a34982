"""The order in which a run goes through its rows: epoch after epoch, or each route by its share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from math import ceil

import numpy as np

from distillkit.arrays import FloatArray, IntArray
from distillkit.data.indexed_rows import IndexedRows

BLOCK = 4096
"""Rows whose routes are found at once."""
Place = tuple[int, int]
"""A row's position in the source's order, and its epoch."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingOrder:
    """A run's rows in training order: a function of the rows, their routes, the config and its seed.

    Without shares each epoch holds every row once. With them, a run has as many rows as without, and each window has
    every route's share of them, to a row or two: rows of one route follow each other in an order of their own, in which
    each stands once before any stands twice. Where shares are those of the rows, that is again every row once an epoch.
    Where a route's share is more than its rows, they come again sooner, in a new order; the rows of others wait for a
    later epoch. `Row.epoch` is then how often the rows of the route were gone through before.
    """

    rows: IndexedRows
    epochs: int
    seed: int
    shuffle: bool
    shares: Mapping[str, float] = field(default_factory=dict)
    """Teacher name to the share of its rows, of teachers that have rows; they sum to 1. Empty: no shares."""
    routes: Mapping[str, IntArray] = field(default_factory=dict)
    """Teacher name to the ascending positions of its rows; empty without shares."""

    def __len__(self) -> int:
        """How many rows the run has, if nothing ends it before."""
        return len(self.rows) * self.epochs

    def positions(self, skip: int = 0) -> Iterator[Place]:
        """Each row's position and epoch, behind the first `skip`."""
        return self._by_share(skip) if self.shares else self._by_epoch(skip)

    def counts(self, rows: int) -> dict[str, int]:
        """Teacher name to how many of the first `rows` rows are its; nothing without shares."""
        found = np.zeros(len(self.shares), np.int64)
        for block in self._routes(0, rows) if self.shares else ():
            found += np.bincount(block, minlength=len(found))
        return dict(zip(self.shares, found.tolist(), strict=True))

    def _by_epoch(self, skip: int) -> Iterator[Place]:
        for epoch in range(skip // len(self.rows), self.epochs):
            done = max(0, skip - epoch * len(self.rows))
            for position in self.rows.order(epoch, self.seed, shuffle=self.shuffle)[done:]:
                yield int(position), epoch

    def _by_share(self, skip: int) -> Iterator[Place]:
        streams = [self._stream(name, done) for name, done in self.counts(skip).items()]
        for block in self._routes(skip, len(self)):
            yield from (next(streams[route]) for route in block.tolist())

    def _stream(self, name: str, skip: int) -> Iterator[Place]:
        """The rows of one route again and again, behind its first `skip`."""
        mine = self.routes[name]
        rows = self.rows.at(mine)
        for epoch in count(skip // len(mine)):
            done = max(0, skip - epoch * len(mine))
            for position in mine[rows.order(epoch, self.seed, shuffle=self.shuffle)][done:].tolist():
                yield position, epoch

    def _routes(self, first: int, last: int) -> Iterator[IntArray]:
        """The place in `shares` of the route of each row from `first` to before `last`, some thousand at a time.

        The n-th row of a route (from 0) is due at `(n + 1/2) / share`; the rows come as they are due. So of the first m
        rows a route has `share * m`, to within half a row for each of the other routes.
        """
        begin = end = done = 0
        while done < last:
            begin, end = end, end + BLOCK
            due = [self._due(share, begin, end) for share in self.shares.values()]
            which = np.repeat(np.arange(len(due)), [len(each) for each in due])
            block = which[np.argsort(np.concatenate(due), kind="stable")]
            yield block[max(0, first - done) : max(0, last - done)]
            done += len(block)

    @staticmethod
    def _due(share: float, begin: int, end: int) -> FloatArray:
        """When those rows of a route are due that are due from `begin` to before `end`."""
        return (np.arange(ceil(begin * share - 0.5), ceil(end * share - 0.5)) + 0.5) / share
