"""The inspector in a real browser: its colours, widths and paper."""

import os
import shutil
from pathlib import Path

import pytest

from browser.conftest import Open

pytestmark = pytest.mark.browser


def test_the_theme_changes_colours_and_text_stays_readable(opened: Open, rich_report: Path) -> None:
    page = opened(rich_report)
    colour = "getComputedStyle(document.querySelector('.d4')).backgroundColor"
    before = page.evaluate(colour)
    while page.evaluate("document.documentElement.dataset.theme") != "dark":
        page.click("#theme")
    assert page.evaluate(colour) != before


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_keeps_people_from_using_it(opened: Open, rich_report: Path, theme: str) -> None:
    script = os.environ.get("AXE")
    if not script or not Path(script).is_file():
        pytest.skip("axe-core is not here: make test-browser gets it with npm")
    page = opened(rich_report, theme=theme)
    page.evaluate(Path(script).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(each["id"], each["nodes"][0]["html"], each["nodes"][0]["failureSummary"]) for each in found] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_fits_its_width(opened: Open, rich_report: Path, tmp_path: Path, theme: str, width: int) -> None:
    page = opened(rich_report, width=width, theme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": width, "height": height})  # so that what sticks to the edge stands at its place
    page.locator("#tokens").screenshot(path=folder / f"inspector-{theme}-{width}.png")


def test_on_paper_the_tokens_are_whole_and_the_controls_gone(opened: Open, rich_report: Path, tmp_path: Path) -> None:
    page = opened(rich_report)
    page.emulate_media(media="print")
    assert not page.locator(".inspector-controls").is_visible()
    assert page.locator(".token").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.token-view')).maxHeight") == "none"
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    page.pdf(path=folder / "inspector.pdf")
    if shutil.which("pdftotext"):
        assert (folder / "inspector.pdf").stat().st_size > 10_000
