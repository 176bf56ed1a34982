"""The memory that code takes at most, measured where no other thread can be in the way."""

import subprocess
import sys
from pathlib import Path

# tracemalloc must not be stopped while other threads run: it ends the process (CPython gh-128679, until 3.12.9).
MEASURE = """
import sys, tracemalloc
from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.row_index import RowIndex
from distillkit.errors import DataError
from distillkit_builtin.datasets.files import FilesDataset

tracemalloc.start()
try:
    IndexedRows(RowIndex(FilesDataset(path=sys.argv[1]))).validate(lambda row: None)
except DataError as error:
    problem = str(error)
else:
    problem = ""
peak = tracemalloc.get_traced_memory()[1]
if "pyarrow" in sys.modules:  # which allocates by itself
    peak += sys.modules["pyarrow"].default_memory_pool().max_memory()
print(peak)
print(problem)
"""


def reading(path: Path) -> tuple[int, str]:
    """Bytes that reading and checking a data file takes at most, and what is said of it (empty if nothing is)."""
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    peak, problem = done.stdout.split("\n", maxsplit=1)
    return int(peak), problem.removesuffix("\n")
