"""The engine's own cost, with plugins that answer at once.

python -m benchmarks.engine
python -m benchmarks.engine --rows 100000
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.engine import data, saving, steps
from benchmarks.engine.inputs import write_rows, write_table, write_tokenizer

MIB = 2**20
EARLY_AND_LATE = 500, 4000
"""Steps after which memory is read."""
Line = tuple[str, str, str]
"""Case, measured, target."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large file")
    parser.add_argument("--repeats", type=int, default=3, help="the best counts")
    parser.add_argument("--folder", type=Path, help="where files of up to 3.5 GB are written; default: a temporary one")
    options = parser.parse_args()
    table = Table("case", "measured", "target", title="What the engine itself costs")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for line in track(_lines(Path(folder), options.rows, options.repeats), "measuring ...", total=13):
            table.add_row(*line)
    Console(width=120).print(table)


def _lines(folder: Path, rows: int, repeats: int) -> Iterator[Line]:
    few, large = write_rows(folder / "few.jsonl", 100_000), write_rows(folder / "large.jsonl", rows)
    tokenizer = write_tokenizer(folder / "tokenizer")
    for loss in ("importance_sampling", "instant"):
        completion, row = steps.measure(few, tokenizer, repeats, loss)
        what = "" if loss == steps.LOSS else ", a plugin's loss"
        yield f"a completion of 256 tokens, whole step{what}", f"{completion * 1e6:.0f} us", "100 us"
        yield f"a row besides, rendered for two sides{what}", f"{row * 1e3:.2f} ms", "0.5 ms"
    few_table, large_table = write_table(folder / "few.parquet", few), write_table(folder / "large.parquet", large)
    for file, form in ((large, "JSON lines"), (large_table, "Parquet")):
        seconds = data.schema_and_routes(file, 1)
        yield f"schema and routes of {rows:,} rows, {form}", f"{seconds:.1f} s", f"{20 * rows / 1e6:g} s"
    for privileged, name in ((False, "one prompt"), (True, "with a privileged prompt")):
        each, tokens = data.lengths(few, tokenizer, 10_000, repeats, privileged=privileged)
        yield f"prompt lengths of a row, {name} ({tokens:.0f} tokens)", f"{each * 1e6:.0f} us", "150 us"
    for files, form in (((few, large), "JSON lines"), ((few_table, large_table), "Parquet")):
        before, after = (_in_a_process("data", file, tokenizer)[0] for file in files)
        each = (after - before) / max(1, rows - 100_000)
        growth = _growth(before, after, each, "row")
        yield f"peak memory, 100,000 to {rows:,} rows, {form}", growth, "21 bytes a row, 8 shuffled"
    early, late = EARLY_AND_LATE
    before, after = _in_a_process("steps", few, early, late)
    yield (
        f"memory, after {early} and {late:,} steps",
        _growth(before, after, (after - before) / (late - early), "step"),
        "flat",
    )
    yield "checksums of a checkpoint, a GiB", f"{saving.sums(folder / 'saved', 2, repeats):.2f} s", "none"
    yield "a completion in flight, as JSON", f"{saving.in_flight(256, repeats) * 1e6:.0f} us", "none"


def _growth(before: float, after: float, each: float, what: str) -> str:
    return f"{before / MIB:.0f} and {after / MIB:.0f} MiB, {each:.0f} bytes a {what}"


def _in_a_process(module: str, *arguments: object) -> list[int]:
    """What a module of this package prints, run by itself."""
    command = [sys.executable, "-m", f"benchmarks.engine.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.splitlines()[-1].split()]


if __name__ == "__main__":
    main()
