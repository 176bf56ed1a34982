"""A real Chromium, and pages that fail a test for whatever they say on the console or ask of the network."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.sample_lines import HOSTILE, MIXED, run_directory, sample_line

from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser installs playwright")
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium, or CHROMIUM=/path/to/it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Open]:
    """Opens a page, a file or an address; at the end nothing may have been said, asked for or run by a stranger."""
    said: list[str] = []
    asked: list[str] = []
    pages: list[Any] = []

    def open_page(
        page: Path | str, *, width: int = 1440, theme: str = "light", online: bool = False, may_fail: bool = False
    ) -> Any:
        """`online`: it may ask the server that it is from; `may_fail`: which may be gone."""
        address = page.as_uri() if isinstance(page, Path) else page
        tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        if not may_fail:  # Chromium itself says so on the console
            tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: said.append(str(error)))
        allowed = address if online else None
        tab.on("request", lambda request: _note(request.url, allowed, asked))
        tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        tab.goto(address)
        if not online:
            asked.remove(address)
        pages.append(tab)
        return tab

    yield open_page
    for page in pages:
        assert page.evaluate("window.hurt") is None, "a text of a model ran"
        page.close()
    assert said == []
    assert asked == []


def _note(url: str, allowed: str | None, asked: list[str]) -> None:
    if allowed is None or not url.startswith(allowed):
        asked.append(url)


def report_of(folder: Path, name: str = "report.html") -> Path:
    """The report of a run's directory, written beside it."""
    page = folder.parent / name
    page.write_text(report_html([read_run(folder)]), encoding="utf-8")
    return page


@pytest.fixture(scope="session")
def rich_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run in which all is recorded that can be, with texts of every kind; see `test_inspector.py`."""
    return report_of(run_directory(tmp_path_factory.mktemp("rich") / "run", rich_lines(), name="rich"))


def rich_lines() -> list[dict[str, Any]]:
    """Two routes; evaluations before and after; completions with all that is recorded, a masked one, a hostile one."""
    lines = [
        sample_line(
            ["The", " answer", " is", f" {stage}", "<|im_end|>"],
            [-1.0, -0.5, -0.25, -2.0, -0.125],
            [-3.0, -0.25, -0.25, -0.5 if stage == "after" else -6.0, -0.5],
            step=0 if stage == "before" else 9,
            stage=stage,
            route=route,
            row=f"{row}-held",
            prompt="user: how many?\nassistant: ",
            teacher_prompt="user: how many?\nThe solution is 4.\nassistant: ",
            special=[4],
        )
        for stage in ("before", "after")
        for row, route in enumerate(("short", "list"))
    ]
    for step in range(1, 10):
        words = [f"step{step}", " has", " many", " words", "."]
        top = {"tokens": [["yes", "no"]] * 5, "logprobs": [[-0.1, -2.5]] * 5}
        lines.append(
            sample_line(
                words,
                [-1.0, -1.0, -1.0, -1.0, -step / 2],
                [-1.0, -0.125, -5.5, -1.0, -0.5],
                step=step,
                route="short" if step % 2 else "list",
                row=f"{step}-train",
                finish_reason="length" if step == 3 else "stop",
                advantages=[0.0, 1.75, -9.0, 0.0, step - 1.0],
                weights=[0.1, 0.1, 0.2, 0.1, 0.0],
                entropy=[0.5, 1.0, 1.5, 2.0, 0.0],
                student_topk=top,
                teacher_topk={"short" if step % 2 else "list": top},
                teacher_ranks={"short" if step % 2 else "list": [1, 2, None, 1, 4]},
            )
        )
    texts = [*HOSTILE, *MIXED]
    gaps = [0.5 * (at % 7) - 1.5 for at in range(len(texts))]
    student = [-2.0] * len(texts)
    hostile = [a + b for a, b in zip(student, gaps, strict=True)]
    lines.append(sample_line(texts, student, hostile, step=5, route="list", row="hostile", prompt="".join(HOSTILE)))
    masked = [1] * 5 + [0] * 20 + [1] * 5
    numbers = [-1.0 if kept else None for kept in masked]
    said = [f" m{at}" for at in range(30)]
    lines.append(sample_line(said, numbers, numbers, step=5, route="list", row="masked", mask=masked))
    return lines
