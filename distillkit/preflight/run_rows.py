"""The rows of a run: read, each with a route and prompts that fit, some of them held out."""

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
class ReadRows:
    """Rows that all have a route and messages for each side."""

    training: IndexedRows
    held_out: IndexedRows | None


@dataclass(frozen=True, slots=True)
class MeasuredRows:
    """Rows whose prompts all fit, those left out that are too long, and what was found out about them."""

    rows: IndexedRows
    pipeline: RowPipeline
    lengths: PromptLengths

    def routed(self) -> tuple[RoutedRow, ...]:
        """All of the rows with their routes and messages."""
        return tuple(RoutedRow(row, *self.pipeline.chat(row)) for row in self.rows.rows())


def read_rows(config: RunConfig, plugins: RunPlugins) -> ReadRows:
    """The rows of a run. Raises DataError for those without a route or messages."""
    data = config.data
    rows = _routed(config, plugins.dataset, data.max_rows)
    if data.held_out_rows is not None:
        return ReadRows(*split_rows(rows, data.held_out_rows, config.seed))
    held_out = plugins.eval_dataset
    return ReadRows(rows, None if held_out is None else _routed(config, held_out, data.max_eval_rows))


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
