"""The rows of a run: read, routed, given their messages, and measured."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from distillkit.config.run_config import RunConfig
from distillkit.config.sections import shares_of
from distillkit.data.held_out_rows import split_rows
from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.render import Renderer
from distillkit.data.row_format.expressions import RowFilter, SortKey
from distillkit.data.row_format.literals import same_for_all
from distillkit.data.row_format.recognition import LOOKED_AT, ReadAs, columns_of, recognized
from distillkit.data.row_format.row_format import RowFormat
from distillkit.data.row_format.shapes import Columns, Mapped
from distillkit.data.row_index import RowIndex
from distillkit.data.row_pipeline import RowPipeline
from distillkit.data.row_selection import RowSelection
from distillkit.data.training_order import TrainingOrder
from distillkit.errors import DataError, RowError
from distillkit.preflight.compatibility import RunPlugins
from distillkit.preflight.prompt_lengths import PromptLengths
from distillkit.roles.attribution import attribute_to
from distillkit.roles.dataset import Dataset
from distillkit.types import RoutedRow


@dataclass(frozen=True, slots=True)
class RoutedRows:
    """The rows to train on, or those held out, each of which has a route and messages."""

    rows: IndexedRows
    pipeline: RowPipeline
    read_as: ReadAs
    notes: tuple[str, ...]
    """What the source, the mapping and the filter made of the rows, for the user."""
    warnings: tuple[str, ...]
    """What is likely not meant so."""

    def split(self, count: int, renderer: Renderer) -> tuple["RoutedRows", "RoutedRows"]:
        """The rows to train on, and `count` that are held out of those whose prompts are not left out.

        Raises DataError if there are not as many, or none are left.
        """
        config = self.pipeline.config
        fits = None if config.data.max_prompt_tokens is None else partial(self._fit, config, renderer)
        train, held_out = split_rows(self.rows, count, config.seed, fits)
        return replace(self, rows=train), replace(self, rows=held_out)

    def _fit(self, config: RunConfig, renderer: Renderer, positions: Sequence[int]) -> list[bool]:
        """Whether prompts are within `data.max_prompt_tokens`; those that cannot be made are refused later."""
        limit = config.data.max_prompt_tokens
        rows = [RoutedRow(row, *self.pipeline.chat(row)) for row in self.rows.rows_at(positions)]
        return [limit is None or isinstance(ids, RowError) or ids.longest <= limit for ids in renderer.ids(rows)]

    def measured(self, renderer: Renderer) -> "MeasuredRows":
        """The rows whose prompts fit, counted; raises DataError for others, but for those that are left out."""
        pipeline = RowPipeline.of(self.pipeline.config)
        lengths = PromptLengths(pipeline, renderer)
        self.rows.validate(lengths.count)
        return MeasuredRows(lengths.kept(self.rows), pipeline, lengths)


@dataclass(frozen=True, slots=True)
class MeasuredRows:
    """Rows whose prompts all fit, without those left out, and what was found out about them."""

    rows: IndexedRows
    pipeline: RowPipeline
    lengths: PromptLengths

    @property
    def order(self) -> TrainingOrder:
        """The order in which a run trains them."""
        config, shares = self.pipeline.config, shares_of(self.pipeline.config.teachers)
        routes = {name: self.lengths.rows_of_route(name) for name in shares if self.lengths.by_route.get(name)}
        total = sum(shares[name] for name in routes)
        mine = {name: shares[name] / total for name in routes}
        return TrainingOrder(self.rows, config.data.epochs, config.seed, config.data.shuffle, mine, routes)

    def routed(self) -> tuple[RoutedRow, ...]:
        """All of the rows with their routes and messages."""
        return tuple(RoutedRow(row, *self.pipeline.chat(row)) for row in self.rows.rows())


@dataclass(frozen=True, slots=True)
class RunRows:
    """All rows of a run, as their sources have them: rows may be held out of `train` yet."""

    train: RoutedRows
    held_out: RoutedRows | None

    def measured(self, renderer: Renderer) -> tuple["MeasuredRows", "MeasuredRows | None"]:
        """The rows to train on and those held out whose prompts fit. Raises DataError as `RoutedRows` does."""
        train, held_out = self.train, self.held_out
        count = train.pipeline.config.data.held_out_rows
        if count is not None:
            train, held_out = train.split(count, renderer)
        return train.measured(renderer), None if held_out is None else held_out.measured(renderer)

    def notes(self) -> Iterator[str]:
        """What was made of them while they were read; what is the same of both is said once."""
        held_out = () if self.held_out is None else self.held_out.notes
        yield from dict.fromkeys((*self.train.notes, *held_out))

    def warnings(self) -> Iterator[str]:
        """What is likely not meant so; what is the same of both is said once."""
        held_out = () if self.held_out is None else self.held_out.warnings
        yield from dict.fromkeys((*self.train.warnings, *held_out))


def read_rows(config: RunConfig, plugins: RunPlugins) -> RunRows:
    """Read and route everything. Raises DataError naming every row that is wrong."""
    train = _routed(config, plugins.dataset, config.data.max_rows, held_out=False)
    if plugins.eval_dataset is None:
        return RunRows(train, None)
    return RunRows(train, _routed(config, plugins.eval_dataset, config.data.max_eval_rows, held_out=True))


def _routed(config: RunConfig, dataset: Dataset, max_rows: int | None, *, held_out: bool) -> RoutedRows:
    data, pipeline = config.data, RowPipeline.of(config)
    sort = None if held_out else data.sort
    selection = RowSelection(
        None if data.filter is None else RowFilter(data.filter),
        None if sort is None else SortKey(sort.by),
        descending=sort is not None and sort.descending,
    )
    key, path = ("data.eval_path", data.eval_path) if held_out else ("data.path", data.path)
    with attribute_to(dataset, "in read()"), _naming(key if path is not None else ""):
        index = RowIndex(dataset, max_rows, selection if data.filter is not None or sort is not None else None)
    rows = IndexedRows(index, ranks=selection.ranks())
    first = list(rows.columns(range(min(len(rows), LOOKED_AT))))
    read_as = _recognized(first, data.format.given, dataset)
    route_field = config.router.route_field()
    if not read_as.is_plain:
        rows = rows.formatted(RowFormat.of(read_as.mapping, pipeline.teachers, route_field))
    rows.validate(pipeline.count)
    others = {route_field, *(teacher.messages_key for teacher in pipeline.teachers)}
    about = read_as.note(name for name in columns_of(first) if name not in others)
    about_selection = selection.notes("held-out row" if held_out else "row")
    notes = (*_notes_of(dataset), *(() if about is None else (about,)), *about_selection)
    return RoutedRows(rows, pipeline, read_as, notes, (*same_for_all(read_as.mapping), *selection.warnings()))


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Say which key of the config named a file that is not there."""
    try:
        yield
    except DataError as error:
        if not key or not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise DataError(f"{key}: {error}", error.options) from error.__cause__


def _recognized(first: Sequence[Columns], written: Mapped, dataset: Dataset) -> ReadAs:
    """As `recognized`; what the dataset found may be why it fails, such as a column that is left out."""
    try:
        return recognized(first, written, dataset.place())
    except DataError as error:
        raise DataError("\n".join([str(error), *_notes_of(dataset)])) from error


def _notes_of(dataset: Dataset) -> Iterator[str]:
    """What the dataset found, after it was read."""
    with attribute_to(dataset, "in notes()"):
        yield from (f"{dataset.place()}: {note}" for note in dataset.notes())
