"""`distillkit view` in a real browser: the list, a report, and that both follow a run without interrupting a reader."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.sample_lines import run_directory

from browser.conftest import Open, rich_lines
from distillkit.view.pages import Pages
from distillkit.view.serve import listening, server_of

pytestmark = pytest.mark.browser
TOKEN = "a-token-of-this-test"
METRIC = '{{"step": {step}, "train/reverse_kl": {value}}}\n'


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    run = run_directory(folder / "first", rich_lines(), name="first")
    lines = [METRIC.format(step=step, value=1 / step) for step in range(1, 20)]
    (run / "metrics.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def address(runs: Path) -> Iterator[str]:
    server = server_of(Pages(runs), TOKEN)
    with listening(0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}/"
        server.should_exit = True
        thread.join(10)


def _train_on(runs: Path, step: int) -> None:
    with (runs / "first/metrics.jsonl").open("a") as file:
        file.write(METRIC.format(step=step, value=0.01))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_the_list_follows_its_runs(
    opened: Open, address: str, runs: Path, tmp_path: Path, theme: str, width: int
) -> None:
    page = opened(address, width=width, theme=theme, online=True)
    assert "19 steps" in page.locator(".run-cards").inner_text()
    assert "0.053 at step 19" in page.locator(".run-cards svg").get_attribute("aria-label")
    _train_on(runs, 20)
    run_directory(runs / "second <b>", [])
    page.get_by_text("20 steps").wait_for(timeout=20_000)
    assert page.locator(".run-cards h3").all_inner_texts() == ["second <b>", "first"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"view-{theme}-{width}.png")


def test_a_report_follows_its_run_until_somebody_reads(opened: Open, address: str, runs: Path) -> None:
    page = opened(address, online=True)
    page.get_by_role("link", name="first").click()
    page.locator(".completion").first.wait_for()
    page.get_by_text("Up to date").wait_for(timeout=20_000)
    first = page.evaluate("document.getElementById('data-live').textContent")
    _train_on(runs, 21)
    page.wait_for_function(
        "first => document.getElementById('data-live')?.textContent !== first", arg=first, timeout=20_000
    )
    page.locator(".completion").nth(2).click()
    _train_on(runs, 22)
    page.get_by_role("button", name="Show what is new").wait_for(timeout=20_000)
    assert page.locator(".completion").nth(2).get_attribute("aria-current") == "true"
    page.get_by_role("button", name="Show what is new").click()
    page.locator(".completion").first.wait_for()
    page.get_by_role("link", name="all runs").click()
    page.get_by_text("22 steps").wait_for(timeout=20_000)


def test_a_server_that_has_ended_is_said(opened: Open, runs: Path) -> None:
    server = server_of(Pages(runs), TOKEN)
    with listening(0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        page = opened(f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}/", online=True, may_fail=True)
        server.should_exit = True
        thread.join(10)
    page.get_by_text("does not answer any more").wait_for(timeout=20_000)
