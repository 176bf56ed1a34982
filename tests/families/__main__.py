"""Measure every family, or those that are named, and compare the table with docs/models.md.

    make families                       # all of them
    make families NAMES="llama gpt_oss"
    make families WRITE=1               # and write the table into docs/models.md

The exit code is 1 if any number is wrong, any run failed, or a row is not what the page says.
"""

import argparse
import time
from collections.abc import Sequence

from families.catalogue import FAMILIES
from families.model_types import rest_of_page, untested_types
from families.pool import measure_all
from families.table import TableRow, differences, rows_of_page, terminal_line, write_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure tiny models of every family.")
    parser.add_argument("names", nargs="*", metavar="FAMILY", help="as in the table; default: all")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--write", action="store_true", help="write what was measured into docs/models.md")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in FAMILIES]
    if unknown:
        parser.error(f"no such family: {', '.join(unknown)}")
    started = time.perf_counter()
    wrong, rows = [], []
    for measured in measure_all(options.names or list(FAMILIES), options.workers):
        rows.append(TableRow.of(measured))
        print(terminal_line(rows[-1], measured.seconds), flush=True)
        if measured.is_wrong:
            wrong.append(measured.name)
    print(f"\n{len(rows)} families in {time.perf_counter() - started:.0f} s; wrong or failed: {_named(wrong)}")
    print(f"untested: {_named(untested_types())}")
    if options.write:
        write_page({**rows_of_page(), **{row.family: row for row in rows}}.values(), rest_of_page())
    said = differences(rows, rows_of_page())
    print("".join(f"{sentence}\n" for sentence in said), end="")
    return 1 if wrong or said else 0


def _named(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"


if __name__ == "__main__":
    raise SystemExit(main())
