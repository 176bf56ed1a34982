"""Both completions of a question, at every width: nothing is wider, and what is cut says so."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from distillkit.cli.generation_page import COMPLETION_LINES, show_before_and_after
from distillkit.probe.before_and_after import BeforeAndAfter, Question
from distillkit.records import Rollout
from distillkit.testing import make_rollout
from distillkit.types import SampleKey

LONG = " ".join(f"word{i}" for i in range(400))
WIDE_LETTERS = "道可道非常道" * 60


def completion(text: str) -> Rollout:
    return replace(make_rollout([1, 2, 3]), text=text)


def page(before: str | None, after: str, width: int, *, full: bool = False, question: str = "why?") -> list[str]:
    file = StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False, soft_wrap=True)
    sides = [None if text is None else completion(text) for text in (before, after)]
    found = BeforeAndAfter(Question(SampleKey("r", 0, 0), "heldout.jsonl:1", question, [1]), *sides)
    show_before_and_after([found], 20, console, full=full)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 99, 100, 140])
@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("text", [LONG, WIDE_LETTERS, "one\n\ntwo", ""])
def test_nothing_is_wider_than_the_terminal(width: int, full: bool, text: str) -> None:
    console = Console(width=width)
    for line in page(text, f"[bold]{text}", width, full=full, question=text):
        assert console.render_str(line, markup=False).cell_len <= width


def test_they_stand_side_by_side_where_there_is_room() -> None:
    wide = page("old", "new", 140)
    assert any("old" in line and "new" in line for line in wide)
    assert wide[2].split("  ")[0].startswith("before (3 tokens, ")
    narrow = page("old", "new", 80)
    assert not any("old" in line and "new" in line for line in narrow)
    assert [line.strip() for line in narrow].index("old") < [line.strip() for line in narrow].index("new")


def test_a_long_completion_is_cut_and_says_how_much_follows() -> None:
    short, whole = page(LONG, "new", 80), page(LONG, "new", 80, full=True)
    assert "word399" not in "\n".join(short)
    assert "word399" in "\n".join(whole)
    all_lines = len([line for line in whole if line.startswith("  word")])
    assert f"  ... {all_lines - COMPLETION_LINES} more lines (--full)" in short
    assert not any("--full" in line for line in whole)


def test_a_text_that_is_one_line_longer_is_shown_whole() -> None:
    text = "\n".join(f"line {i}" for i in range(COMPLETION_LINES + 1))
    assert f"  line {COMPLETION_LINES}" in page(text, "new", 80)


def test_a_completion_that_failed_and_text_that_looks_like_markup() -> None:
    lines = page(None, "[red]x[/red]", 80)
    assert "before: could not be sampled" in lines
    assert "  [red]x[/red]" in lines


@pytest.mark.parametrize("width", [80, 140])
def test_what_a_model_writes_moves_no_cursor(width: int) -> None:
    lines = page("a\x1b[2Jb\x07", "c\rd\u202ee", width)
    assert not [each for line in lines for each in line if not each.isprintable()]
    assert any("a\\x1b[2Jb\\x07" in line for line in lines)
    assert any("c\\rd\\u202ee" in line for line in lines)
