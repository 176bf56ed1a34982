"""The rows of a run: read, each with a route and prompts that fit, some of them held out."""

from collections.abc import Iterator
from dataclasses import dataclass

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
class RunRows:
    """All rows of a run, each of which has a route and messages for each side."""

    train: IndexedRows
    held_out: IndexedRows | None
    datasets: tuple[Dataset, ...]
    """Where they come from."""

    def notes(self) -> Iterator[str]:
        """What the datasets found while their rows were read."""
        for dataset in self.datasets:
            with attribute_to(dataset, "in notes()"):
                yield from (f"{dataset.place()}: {note}" for note in dataset.notes())


@dataclass(frozen=True, slots=True)
class MeasuredRows:
    """Rows whose prompts all fit, those left out that are too long, and what was found out about them."""

    rows: IndexedRows
    pipeline: RowPipeline
    lengths: PromptLengths

    def routed(self) -> tuple[RoutedRow, ...]:
        """All of the rows with their routes and messages."""
        return tuple(RoutedRow(row, *self.pipeline.chat(row)) for row in self.rows.rows())


def read_rows(config: RunConfig, plugins: RunPlugins) -> RunRows:
    """Read and route everything. Raises DataError naming every row that is wrong."""
    data, dataset, eval_dataset = config.data, plugins.dataset, plugins.eval_dataset
    train = _routed(config, dataset, data.max_rows)
    if data.held_out_rows is not None:
        return RunRows(*split_rows(train, data.held_out_rows, config.seed), (dataset,))
    if eval_dataset is None:
        return RunRows(train, None, (dataset,))
    return RunRows(train, _routed(config, eval_dataset, data.max_eval_rows), (dataset, eval_dataset))


def _routed(config: RunConfig, dataset: Dataset, max_rows: int | None) -> IndexedRows:
    with attribute_to(dataset, "in read()"):
        index = RowIndex(dataset, max_rows)
    rows = IndexedRows(index)
    rows.validate(RowPipeline.of(config).count)
    return rows


def measure_rows(config: RunConfig, rows: IndexedRows, renderer: Renderer) -> MeasuredRows:
    """The rows with their prompts measured. Raises DataError for those that do not fit or are not in their prompts."""
    pipeline = RowPipeline.of(config)
    lengths = PromptLengths(pipeline, renderer)
    rows.validate(lengths.count)
    return MeasuredRows(lengths.kept(rows), pipeline, lengths)
