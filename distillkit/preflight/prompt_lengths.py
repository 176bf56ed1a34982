"""What is found out about rows while their prompts are made once, before anything is loaded; in flat memory."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from distillkit.arrays import IntArray
from distillkit.data.indexed_rows import InBatches, IndexedRows
from distillkit.data.render import Renderer, RowIds
from distillkit.data.row_pipeline import RowPipeline
from distillkit.data.training_order import TrainingOrder
from distillkit.errors import DataError, RowError
from distillkit.preflight.overlong_prompts import OverlongPrompts
from distillkit.preflight.same_rows import RowHashes
from distillkit.preflight.unread_columns import UnreadColumns
from distillkit.prompt_check.prompt_check import PromptCheck
from distillkit.types import RoutedRow, Row


class PromptLengths:
    """Prompt lengths, which rows are left out for theirs, and whatever else prompts show; of many rows."""

    def __init__(self, pipeline: RowPipeline, renderer: Renderer) -> None:
        """No rows and no tokens so far; rows are routed and counted by `pipeline` and rendered by `renderer`."""
        self._pipeline = pipeline
        self._renderer = renderer
        self._check = PromptCheck(renderer)
        self._limit = pipeline.config.data.max_prompt_tokens
        self._too_long = OverlongPrompts(renderer)
        self._seen = 0
        self._left_out = array("q")
        self._shortest: int | None = None
        self._longest_left_out = 0
        self.unread = UnreadColumns(pipeline.teachers)
        self.hashes = RowHashes()
        self.by_route: dict[str, RouteLengths] = {}
        self._routes = array("i")
        self.rows = 0
        self.student = LengthTotals()
        self.teachers = LengthTotals()
        self.longest_teacher = 0

    @property
    def count(self) -> InBatches:
        """Render rows and add their lengths; a RowError for one that is too long."""
        return InBatches(self._count, lambda: self._too_long.advice(self.rows))

    def _count(self, rows: Sequence[Row]) -> list[RowError | None]:
        routed = [self._pipeline.routed(row) for row in rows]
        rendered = iter(self._renderer.ids([row for row in routed if isinstance(row, RoutedRow)]))
        return [row if isinstance(row, RowError) else self._add(row, next(rendered)) for row in routed]

    def kept(self, rows: IndexedRows) -> IndexedRows:
        """The rows that were counted of `rows`, all of which were looked at. Raises DataError if none are left."""
        if not self._left_out:
            return rows
        if not self.rows:
            raise DataError(
                f"{rows.place}: data.max_prompt_tokens={self._limit} leaves out all {len(rows):,} rows; the shortest "
                f"has {self._shortest} tokens in its longest prompt"
            )
        return rows.at(np.delete(np.arange(len(rows), dtype=np.int64), np.frombuffer(self._left_out, np.int64)))

    def rows_of_route(self, label: str) -> IntArray:
        """The positions, among the rows that were kept, of those with this route; they ascend."""
        return np.flatnonzero(np.frombuffer(self._routes, np.intc) == self.by_route[label].place).astype(np.int64)

    def prompt_tokens(self, rows: int, order: TrainingOrder) -> tuple[int, int]:
        """The most tokens that the student's and the teachers' prompts of the first `rows` rows of a run can have."""
        counts = order.counts(rows)
        if not counts:
            return self.student.at_most(rows, self.rows), self.teachers.at_most(rows, self.rows)
        routes = [(self.by_route[name], count) for name, count in counts.items()]
        return (
            sum(route.student.at_most(count, route.rows) for route, count in routes),
            sum(route.teachers.at_most(count, route.rows) for route, count in routes),
        )

    def notes(self, of: str) -> list[str]:
        """What config and rows have set so: rows left out for their length, prompts that teachers have not."""
        left_out = [
            f"{len(self._left_out):,} of {self._seen:,} {of}s are left out: a prompt of theirs, of the student or of a "
            f"teacher, has more tokens than data.max_prompt_tokens={self._limit} (at most {self._longest_left_out:,})"
        ]
        return [*(left_out if self._left_out else ()), *self._pipeline.notes(of)]

    def warnings(self, of: str) -> list[str]:
        """Prompts that are not what their rows say."""
        return self._check.notes(of)

    def _add(self, routed_row: RoutedRow, ids: RowIds | RowError) -> RowError | None:
        position, self._seen = self._seen, self._seen + 1
        if isinstance(ids, RowError):
            return ids
        if self._limit is not None and self._is_left_out(position, ids.longest):
            return None
        too_long = self._renderer.too_long(ids)
        if too_long is not None:
            self._too_long.add(routed_row.row.place, ids)
        problem = too_long or self._check.problem(routed_row)
        if problem is not None:
            return problem
        self._pipeline.add(routed_row.route, routed_row.chat)
        self.unread.add(routed_row)
        self.hashes.add(routed_row)
        self.rows += 1
        theirs = [len(each) for each in ids.teachers.values()]
        label = routed_row.route.label
        route = self.by_route.setdefault(label, RouteLengths(len(self.by_route)))
        self._routes.append(route.place)
        route.rows += 1
        for student, teachers in ((self.student, self.teachers), (route.student, route.teachers)):
            student.add(len(ids.student))
            teachers.add(sum(theirs))
        self.longest_teacher = max(self.longest_teacher, *theirs)
        return None

    def _is_left_out(self, position: int, tokens: int) -> bool:
        self._shortest = tokens if self._shortest is None else min(self._shortest, tokens)
        if self._limit is None or tokens <= self._limit:
            return False
        self._left_out.append(position)
        self._longest_left_out = max(self._longest_left_out, tokens)
        return True


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


@dataclass(slots=True)
class RouteLengths:
    """What is known of the rows of one route."""

    place: int
    """Which of the routes it is, in the order in which they were met."""
    rows: int = 0
    student: LengthTotals = field(default_factory=LengthTotals)
    teachers: LengthTotals = field(default_factory=LengthTotals)
