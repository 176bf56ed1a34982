"""The report's own tables in a real Chromium, on the screen of a telephone."""

from pathlib import Path

import pytest
from helpers.written_runs import write_run

from browser.conftest import Open
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html

pytestmark = pytest.mark.browser
CUT = """() => [...document.querySelectorAll('.scroll caption')].filter(caption => {
  const text = document.createRange();
  text.selectNodeContents(caption);
  return text.getBoundingClientRect().right > caption.closest('.scroll').getBoundingClientRect().right + 1;
}).map(caption => caption.textContent)"""


def test_no_caption_is_cut_on_a_telephone_and_the_rest_unfolds(opened: Open, tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, name=name, config={"seed": ord(name)})) for name in "ab"]
    page = tmp_path / "report.html"
    page.write_text(report_html(runs), encoding="utf-8")
    tab = opened(page, width=390)
    tab.locator("summary", has_text="more metrics of training").click()
    assert tab.locator("[aria-label='More metrics of training, runs side by side']").is_visible()
    assert tab.evaluate(CUT) == []
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
