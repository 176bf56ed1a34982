"""Weather reports: blocks of text with a blank line between them, as the wire brings them."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from distillkit import DataError, Dataset, RawRow, RowError, RowFile, UnreadableRow


class ReportsDataset(Dataset):
    """A file of reports, a question about each: `STATION: text` and further lines."""

    name: ClassVar[str] = "reports"

    path: str = Field(description="The file.")

    def place(self) -> str:
        """The file."""
        return self.path

    def read(self) -> Iterator[RawRow | UnreadableRow]:
        """A row a report; one without a station is unreadable."""
        of = RowFile(Path(self.path).name)
        try:
            with Path(self.path).open(encoding="utf-8") as file:
                blocks = (list(lines) for filled, lines in groupby(file, lambda line: bool(line.strip())) if filled)
                for number, lines in enumerate(blocks, start=1):
                    yield report_row(of, number, "".join(lines).strip())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: cannot be read: {error}") from error


def report_row(of: RowFile, number: int, text: str) -> RawRow | UnreadableRow:
    """One report as a question."""
    station, mark, report = text.partition(":")
    if not mark:
        return UnreadableRow(of, number, RowError("report", "has no `STATION:` before it"))
    messages = [{"role": "user", "content": f"What does this mean: {report.strip()}"}]
    return RawRow.of(of, number, {"messages": messages, "station": station})
