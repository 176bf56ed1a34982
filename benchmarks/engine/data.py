"""What reading, checking and measuring rows takes, and the memory that it takes at most."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.engine.inputs import TEACHERS
from benchmarks.engine.instant import instant_config
from distillkit import Registry, RunConfig
from distillkit.context import SharedObjects
from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.row_index import RowIndex
from distillkit.data.row_pipeline import RowPipeline
from distillkit.preflight.compatibility import plugins_of
from distillkit.preflight.plan import PromptLengths
from distillkit.preflight.prepared_run import context_for, make_renderer
from distillkit.roles.plugin import CheckReport
from distillkit_builtin.datasets.files import FilesDataset


def schema_and_routes(data: Path, repeats: int) -> float:
    """Seconds of CPU time until every row is indexed, parsed, routed and given its messages."""
    config = instant_config(data.parent, data, TEACHERS, None)
    return best(lambda: rows_of(data).validate(RowPipeline.of(config).count), repeats)


def rows_of(data: Path, max_rows: int | None = None) -> IndexedRows:
    """The rows of a file."""
    return IndexedRows(RowIndex(FilesDataset(path=str(data)), max_rows))


def lengths(data: Path, tokenizer: Path, rows: int, repeats: int, *, privileged: bool) -> tuple[float, float]:
    """Seconds a row until its prompts are measured, and their tokens."""
    config = instant_config(data.parent, data, TEACHERS, tokenizer, privileged=privileged)
    shared = SharedObjects()
    plugins = plugins_of(config, Registry.discover())
    contexts = {user: context_for(user, config, shared, print) for user in plugins.by_key}
    renderer = make_renderer(config, contexts, dict.fromkeys(contexts, CheckReport()))
    return _measured(config, PromptLengths(RowPipeline.of(config), renderer), rows_of(data, rows), repeats)


def _measured(config: RunConfig, found: PromptLengths, dataset: IndexedRows, repeats: int) -> tuple[float, float]:
    seconds = best(lambda: dataset.validate(found.count), repeats)
    return seconds / len(dataset), (found.student.total + found.teachers.total) / found.rows


def best(work: Callable[[], object], repeats: int) -> float:
    """The least seconds of CPU time of several times: what else the machine does only adds."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def peak_memory(data: Path, tokenizer: Path) -> int:
    """Bytes that this process took at most to check all rows, measure a thousand, and take a thousand in turn."""
    schema_and_routes(data, 1)
    lengths(data, tokenizer, 1000, 1, privileged=True)
    dataset = rows_of(data)
    for index in dataset.order(0, 0, shuffle=True)[:1000]:
        dataset.row(int(index))
    return peak()


def peak() -> int:
    """Bytes of this process in memory at most, so far; `getrusage` would count its parent's before `exec` too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    print(peak_memory(Path(sys.argv[1]), Path(sys.argv[2])))
