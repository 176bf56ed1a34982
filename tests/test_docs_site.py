"""The site's navigation holds every page once, and what is published beside the pages; `make docs-build` builds it."""

import json
import re
import runpy
import tempfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

TOP = Path(__file__).parent.parent
SITE = TOP / "docs" / "site"
LIST = (TOP / "docs" / "README.md").read_text(encoding="utf-8")
NAVIGATION = runpy.run_path(str(SITE / "navigation.py"))
PUBLISHED = runpy.run_path(str(SITE / "published.py"))


def test_every_page_is_in_the_list_once() -> None:
    """A page of the comments in docs/README.md whose file has come is to be taken out of its comment."""
    counted = Counter(page for _, pages in NAVIGATION["parts"](LIST) for page in pages)
    assert not [page for page, count in counted.items() if count > 1]
    folders = ("docs", "benchmarks", "loopback")
    pages = {path.relative_to(TOP).as_posix() for folder in folders for path in (TOP / folder).rglob("*.md")}
    pages |= {path.name for path in TOP.glob("*.md")}
    assert NAVIGATION["listed"](PurePosixPath("docs"), LIST) == pages - {"docs/README.md"}


def test_a_list_becomes_toctrees_and_comments_become_nothing() -> None:
    text = "# All\n\n## One\n\n- [A](a.md): first\n<!-- - [B](b.md) -->\n- [C](../c/README.md)\n\n## Two\n\nText.\n"
    assert list(NAVIGATION["parts"](text)) == [("One", ["a", "../c/README"]), ("Two", [])]
    made = NAVIGATION["with_toctrees"](text)
    assert made.startswith(text.rstrip())
    assert "```{toctree}\n:hidden:\n:caption: One\n\na\n../c/README\n```" in made
    assert NAVIGATION["listed"](PurePosixPath("docs"), text) == {"docs/a.md", "c/README.md"}


def test_what_a_browser_would_fetch_is_found_and_what_a_reader_follows_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "page.html").write_text(
        '<a href="https://x.test/">x</a><script src="../_static/a.js"></script><img alt="" src="//cdn.test/a.png">'
        '<script defer src="https://cdn.test/a.js"></script><link rel="stylesheet" href="https://cdn.test/a.css">',
        encoding="utf-8",
    )
    (tmp_path / "a.css").write_text("@import 'https://f.test/f.css'; a { src: url(./a.woff2) }", encoding="utf-8")
    assert list(PUBLISHED["fetched"](tmp_path)) == [
        ("a/page.html", "//cdn.test/a.png"),
        ("a/page.html", "https://cdn.test/a.js"),
        ("a/page.html", "https://cdn.test/a.css"),
        ("a.css", "https://f.test/f.css"),
    ]


def test_versions_are_listed_newest_first_and_the_index_leads_to_the_newest(tmp_path: Path) -> None:
    for version in ("0.2.0", "0.10.0", "0.9.1"):
        page = tmp_path / version / PUBLISHED["FIRST_PAGE"]
        page.parent.mkdir(parents=True)
        page.write_text("", encoding="utf-8")
    (tmp_path / "notes").mkdir()
    PUBLISHED["write_versions"](tmp_path, "/kit/")
    listed: list[dict[str, Any]] = json.loads((tmp_path / "switcher.json").read_text(encoding="utf-8"))
    assert [entry["version"] for entry in listed] == ["0.10.0", "0.9.1", "0.2.0"]
    assert [entry["preferred"] for entry in listed] == [True, False, False]
    assert listed[1]["url"] == "/kit/0.9.1/"
    assert 'url=0.10.0/docs/README.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_versions_of_the_generator_are_exact_and_ci_builds_strictly() -> None:
    lines = (SITE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)
    assert {"Sphinx", "myst-parser", "pydata-sphinx-theme"} <= {line.partition("==")[0] for line in pinned}
    assert "make docs-build\n" in (TOP / ".ci" / "run").read_text(encoding="utf-8")
    assert '"--fail-on-warning"' in (SITE / "build.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_first_row_of_the_memory_table_is_what_check_reckons() -> None:
    script = runpy.run_path(str(TOP / "docs" / "make_memory.py"))
    with tempfile.TemporaryDirectory() as folder:
        row = script["line"](Path(folder), "0.6B")
    written = (TOP / "docs" / "recipes" / "memory.md").read_text(encoding="utf-8")
    assert f"\n{row}\n" in written, "docs/recipes/memory.md has fallen behind: run python docs/make_memory.py"


def test_the_table_of_measured_memory_is_the_benchmarks() -> None:
    measured = (TOP / "benchmarks" / "README.md").read_text(encoding="utf-8")
    page = (TOP / "docs" / "recipes" / "memory.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[a-z\d-]+` \|.*\|$", page.partition("## How far to trust it")[2], flags=re.MULTILINE)
    assert len(rows) == 6
    assert all(row in measured for row in rows)


def test_metrics_that_the_table_of_decisions_names_are_metrics() -> None:
    page = (TOP / "docs" / "recipes" / "when-it-does-not-work.md").read_text(encoding="utf-8")
    known = (TOP / "docs" / "metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:train|eval|completions|rollout|weights|teacher_route)/[^`]+)`", page))
    assert len(named) > 10
    for name in named:
        folder, _, rest = name.partition("/")
        assert f"`{name}`" in known or f"/{rest}`" in known or f"`/{rest.rpartition('/')[2]}`" in known, name
        assert f"`{folder}/" in known


def test_options_that_the_tables_of_other_tools_name_exist() -> None:
    """Keys in the column "here", which is the second."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (TOP / "docs" / "reference").glob("*.md"))
    options = set(re.findall(r"^\| `([\w.]+)` \|", pages, flags=re.MULTILINE))
    sections = {each.partition(".")[0] for each in options}
    for path in sorted((TOP / "docs" / "moving-from").glob("*.md")):
        rows = re.findall(r"^\|[^|]+\|([^|]+)\|", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for option in re.findall(r"`(?:student|sampling|train|data|loss)\.([a-z_]+)", "".join(rows)):
            assert option in options | sections, f"{path.name}: no option {option}"
