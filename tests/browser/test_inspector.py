"""The inspector in a real browser: what is shown of completions and tokens, and that texts stay texts."""

from pathlib import Path

import pytest
from helpers.sample_lines import HOSTILE, MIXED, run_directory, sample_line

from browser.conftest import Open, report_of
from browser.inspector_rows import open_row, row_snippets
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html

pytestmark = pytest.mark.browser


def test_pointing_at_a_token_and_focusing_it_show_its_numbers(opened: Open, rich_report: Path) -> None:
    page = opened(rich_report)
    open_row(page, "step4")
    page.locator(".token").nth(2).hover()
    readout = page.locator(".readout").inner_text()
    for part in (
        "␣many",
        "token 3 of 5",
        "\u22121.000 (36.8%)",
        "\u22125.500 (0.4%)",
        "\u22124.500 nats",
        "\u22129.000",
        "0.2",
        "1.500 nats",
    ):
        assert part in readout
    assert "not in its top-K" in readout
    page.locator(".token").nth(1).focus()
    readout = page.locator(".readout").inner_text()
    for part in ("␣has", "+0.875 nats", "+1.750", "yes", "90.5%"):
        assert part in readout
    label = page.locator(".token").nth(1).get_attribute("aria-label")
    assert label == "␣has: push +1.750, student \u22121.000, teacher \u22120.125"


def test_before_and_after_stand_beside_each_other(opened: Open, rich_report: Path) -> None:
    page = opened(rich_report)
    page.select_option("#inspector-when", "before")
    page.locator(".completion").first.click()
    assert page.locator(".side h4").all_inner_texts() == ["before", "after"]
    left, right = (page.locator(".side").nth(at).bounding_box() for at in (0, 1))
    assert left["x"] + left["width"] <= right["x"]
    assert "before" in page.locator(".side .tokens").nth(0).inner_text()
    assert "after" in page.locator(".side .tokens").nth(1).inner_text()


def test_what_the_teacher_reads_besides_is_marked(opened: Open, rich_report: Path) -> None:
    page = opened(rich_report)
    page.select_option("#inspector-when", "before")
    page.locator(".completion").first.click()
    assert page.locator(".prompt mark").all_inner_texts() == ["The solution is 4.\n"]
    assert page.locator(".prompt").count() == 2


def test_filters_order_and_search(opened: Open, rich_report: Path) -> None:
    page = opened(rich_report)
    assert "15 completions" in page.locator(".count").inner_text()
    page.select_option("#inspector-finish", "length")
    assert row_snippets(page) == ["step3 has many words."]
    page.select_option("#inspector-finish", "")
    page.select_option("#inspector-route", label="short")
    page.select_option("#inspector-when", "train")
    assert [row[:5] for row in row_snippets(page)] == ["step1", "step3", "step5", "step7", "step9"]
    page.select_option("#inspector-sort", "-sum")
    assert [row[:5] for row in row_snippets(page)] == ["step9", "step7", "step5", "step3", "step1"]
    page.select_option("#inspector-sort", "lowest")
    assert len(row_snippets(page)) == 5
    page.fill("#inspector-search", "STEP7 has")
    assert [row[:5] for row in row_snippets(page)] == ["step7"]
    assert "1 of 15 completions" in page.locator(".count").inner_text()
    page.fill("#inspector-search", "nowhere")
    assert row_snippets(page) == []
    page.fill("#inspector-search", "")
    page.select_option("#inspector-when", label="step 5")
    assert [row[:5] for row in row_snippets(page)] == ["step5"]


def test_colours_follow_what_is_chosen_and_the_scale_says_what_they_mean(opened: Open, rich_report: Path) -> None:
    page = opened(rich_report)
    open_row(page, "step4")

    def shades() -> list[str]:
        names = [page.locator(".token").nth(at).get_attribute("class").split() for at in range(5)]
        return [next((name for name in each if name[-1].isdigit()), "") for each in names]

    assert shades() == ["", "u2", "d4", "", "u3"]
    assert "≤ \u22124" in page.locator(".token-legend").inner_text()
    options = page.locator("#inspector-colour option").all_inner_texts()
    assert options == ["gap of the logprobs", "advantage", "weight", "student's entropy", "teacher's rank of the token"]
    page.select_option("#inspector-colour", "g")
    assert shades() == ["s2", "s2", "s4", "s2", ""]
    page.select_option("#inspector-colour", "h")
    assert shades() == ["", "s1", "s4", "", "s2"]
    assert "not in its top-K" in page.locator(".token-legend").inner_text()


def test_only_what_is_recorded_is_offered(opened: Open, tmp_path: Path) -> None:
    page = opened(report_of(run_directory(tmp_path / "run", [sample_line(["a", "b"], [-1, -1], [-2, -0.5])])))
    assert page.locator("#inspector-colour option").all_inner_texts() == ["advantage (the gap of the logprobs)"]
    assert page.locator("#inspector-route").count() == 0


def test_several_runs_are_told_apart(opened: Open, tmp_path: Path) -> None:
    runs = [
        run_directory(
            tmp_path / name, [sample_line([name], [-1], [-2], row="1-same", stage="after", step=3)], name=name
        )
        for name in ("first", "second")
    ]
    report = tmp_path / "both.html"
    report.write_text(report_html([read_run(run) for run in runs]), encoding="utf-8")
    page = opened(report)
    assert row_snippets(page) == ["first", "second"]
    page.select_option("#inspector-run", label="second")
    page.locator(".completion").click()
    assert page.locator(".side").count() == 1
    assert page.locator(".side .tokens").inner_text() == "second"


def test_masked_turns_are_folded(opened: Open, rich_report: Path) -> None:
    page = opened(rich_report)
    open_row(page, "m29")
    assert page.locator(".masked summary").inner_text() == "20 tokens that the student did not write"
    assert not page.locator(".masked div").is_visible()
    page.locator(".masked summary").click()
    assert page.locator(".masked div").inner_text().split() == [f"m{at}" for at in range(5, 25)]
    assert page.locator(".token").count() == 10


def test_texts_of_every_kind_are_shown_and_none_does_anything(opened: Open, rich_report: Path) -> None:
    page = opened(rich_report)
    open_row(page, "evil")
    shown = page.locator(".token").all_inner_texts()
    assert len(shown) == len(HOSTILE) + len(MIXED)
    assert shown[0] == HOSTILE[0]
    assert page.locator(".detail script, .detail img, .completion-list img").count() == 0
    joined = "".join(shown)
    for part in (
        "\u2039U+202E\u203aevil",
        "␛[31m",
        "␀",
        "&amp;",
        "{{ 7*7 }}",
        "\u2039U+2028\u203a",
        "\u2039U+D800\u203a",
        "ï",
        "🦊",
        "العربية",
        "↵",
        "⇥",
        "⍽",
    ):
        assert part in joined
    assert "\u202e" not in page.locator("body").inner_text()
    page.locator(".token").nth(0).hover()
    assert HOSTILE[0] in page.locator(".readout").inner_text()
