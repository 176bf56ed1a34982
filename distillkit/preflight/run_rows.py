"""The rows of a run: read, routed, given their messages, and measured."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from distillkit.config.run_config import RunConfig
from distillkit.data.held_out_rows import split_rows
from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.render import Renderer
from distillkit.data.row_index import RowIndex
from distillkit.data.row_pipeline import RowPipeline
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
    dataset: Dataset

    def split(self, count: int, seed: int) -> tuple["RoutedRows", "RoutedRows"]:
        """The rows to train on, and `count` that are held out. Raises DataError if none are left."""
        train, held_out = split_rows(self.rows, count, seed)
        return replace(self, rows=train), replace(self, rows=held_out)

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

    def routed(self) -> tuple[RoutedRow, ...]:
        """All of the rows with their routes and messages."""
        return tuple(RoutedRow(row, *self.pipeline.chat(row)) for row in self.rows.rows())


@dataclass(frozen=True, slots=True)
class RunRows:
    """All rows of a run."""

    train: RoutedRows
    held_out: RoutedRows | None

    def notes(self) -> Iterator[str]:
        """What the datasets found while their rows were read."""
        for part in (self.train, self.held_out):
            if part is not None and (part is self.train or part.dataset is not self.train.dataset):
                with attribute_to(part.dataset, "in notes()"):
                    yield from (f"{part.dataset.place()}: {note}" for note in part.dataset.notes())


def read_rows(config: RunConfig, plugins: RunPlugins) -> RunRows:
    """Read and route everything. Raises DataError naming every row that is wrong."""
    train = _routed(config, plugins.dataset, config.data.max_rows)
    if config.data.held_out_rows is not None:
        return RunRows(*train.split(config.data.held_out_rows, config.seed))
    eval_dataset = plugins.eval_dataset
    return RunRows(train, None if eval_dataset is None else _routed(config, eval_dataset, config.data.max_eval_rows))


def _routed(config: RunConfig, dataset: Dataset, max_rows: int | None) -> RoutedRows:
    pipeline = RowPipeline.of(config)
    with attribute_to(dataset, "in read()"):
        index = RowIndex(dataset, max_rows)
    rows = IndexedRows(index)
    rows.validate(pipeline.count)
    return RoutedRows(rows, pipeline, dataset)
