"""The pages of the documentation, and their headings."""

import re
from pathlib import Path

TOP = Path(__file__).parent.parent.parent
PAGES = sorted([TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "CHANGELOG.md", *(TOP / "docs").rglob("*.md")])
REFERENCE = TOP / "docs" / "reference"


def headings_of(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}
