"""The table of docs/models.md: a row a family."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from families.measurement import Measurement, Trial

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = ("family", "path", "LoRA", "all weights", "export", "remarks")
MARKERS = {name: (f"<!-- {name}: written by make families -->", f"<!-- {name}: end -->") for name in ("table", "rest")}


@dataclass(frozen=True, slots=True)
class TableRow:
    """The cells of one family."""

    family: str
    path: str
    lora: str
    all_weights: str
    export: str
    remarks: str

    @classmethod
    def of(cls, measured: Measurement) -> "TableRow":
        """As measured."""
        lora, all_weights = (measured.trials[mode] for mode in ("lora", "all weights"))
        remarks = measured.remarks.replace("|", "\\|")
        return cls(measured.name, measured.path, _verdict(lora), _verdict(all_weights), measured.export, remarks)

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of `HEAD`."""
        return (self.family, self.path, self.lora, self.all_weights, self.export, self.remarks)

    def differs(self, other: "TableRow") -> bool:
        """Whether anything but the remarks is another: their figures hang on the machine."""
        return self.cells[:-1] != other.cells[:-1]

    def markdown(self) -> str:
        """A line of the page."""
        return f"| {' | '.join(self.cells)} |".replace("  |", " |")


def _verdict(trial: Trial) -> str:
    return trial.verdict


def rows_of_page(page: Path = PAGE) -> dict[str, TableRow]:
    """Family to its row of the page."""
    lines = section(page.read_text(encoding="utf-8"), "table").splitlines()
    found = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")][2:]
    rows = [TableRow(*(cell.strip() for cell in cells)) for cells in found]
    return {row.family: row for row in rows}


def section(text: str, name: str) -> str:
    """What stands between the markers of that name."""
    begin, end = MARKERS[name]
    return text.partition(begin)[2].partition(end)[0]


def write_page(rows: Iterable[TableRow], rest: str, page: Path = PAGE) -> None:
    """Put the rows, and the `rest` of what transformers has, between their markers."""
    line = f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}"
    table = "\n".join([line, *(row.markdown() for row in sorted(rows, key=lambda row: row.family))])
    text = page.read_text(encoding="utf-8")
    for name, content in (("table", table), ("rest", rest)):
        begin, end = MARKERS[name]
        before, after = text.partition(begin)[0], text.partition(end)[2]
        text = f"{before}{begin}\n\n{content}\n\n{end}{after}"
    page.write_text(text, encoding="utf-8")


def terminal_line(row: TableRow, seconds: float) -> str:
    """A row as it is printed when it is there."""
    widths = (26, 16, 8, 11, 6)
    cells = " ".join(cell.ljust(width) for cell, width in zip(row.cells, widths, strict=False))
    return f"{cells} {seconds:4.0f} s  {row.remarks}".rstrip()


def differences(rows: Sequence[TableRow], page: Mapping[str, TableRow]) -> list[str]:
    """Sentences on rows that are not as the page has them."""
    said = []
    for row in rows:
        written = page.get(row.family)
        if written is None:
            said.append(f"{row.family} has no row in {PAGE.name}")
        elif row.differs(written):
            said.append(f"{row.family} is {row.markdown()}, and {PAGE.name} says {written.markdown()}")
    return said
