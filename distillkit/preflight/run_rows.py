"""The rows of a run: read, routed, given their messages, and measured."""

from collections.abc import Iterator
from dataclasses import dataclass

from distillkit.config.run_config import RunConfig
from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.render import Renderer
from distillkit.data.row_index import RowIndex
from distillkit.data.row_pipeline import RowPipeline
from distillkit.preflight.compatibility import RunPlugins
from distillkit.preflight.plan import PromptLengths
from distillkit.roles.attribution import attribute_to
from distillkit.roles.dataset import Dataset


@dataclass(frozen=True, slots=True)
class RoutedRows:
    """The rows to train on, or those held out, each of which has a route and messages."""

    rows: IndexedRows
    pipeline: RowPipeline
    dataset: Dataset

    def measured(self, renderer: Renderer) -> PromptLengths:
        """The lengths of all prompts, each of which fits. Raises DataError."""
        lengths = PromptLengths(self.pipeline, renderer)
        self.rows.validate(lengths.count)
        return lengths


@dataclass(frozen=True, slots=True)
class RunRows:
    """All rows of a run."""

    train: RoutedRows
    held_out: RoutedRows | None

    def notes(self) -> Iterator[str]:
        """What the datasets found while their rows were read."""
        for part in (self.train, self.held_out):
            if part is not None:
                with attribute_to(part.dataset, "in notes()"):
                    yield from (f"{part.dataset.place()}: {note}" for note in part.dataset.notes())


def read_rows(config: RunConfig, plugins: RunPlugins) -> RunRows:
    """Read and route everything. Raises DataError naming every row that is wrong."""
    train = _routed(config, plugins.dataset, config.data.max_rows)
    eval_dataset = plugins.eval_dataset
    return RunRows(train, None if eval_dataset is None else _routed(config, eval_dataset, config.data.max_eval_rows))


def _routed(config: RunConfig, dataset: Dataset, max_rows: int | None) -> RoutedRows:
    pipeline = RowPipeline.of(config)
    with attribute_to(dataset, "in read()"):
        index = RowIndex(dataset, max_rows)
    rows = IndexedRows(index)
    rows.validate(pipeline.count)
    return RoutedRows(rows, pipeline, dataset)
