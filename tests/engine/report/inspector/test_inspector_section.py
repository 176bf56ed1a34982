"""What the inspector's section holds of a run's completions."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.sample_lines import HOSTILE, MIXED, long_run_lines, run_directory, sample_line

from distillkit.report.html_templates import json_in_html
from distillkit.report.inspector.inspector_section import inspector_section, visible
from distillkit.report.read_run import read_run


def _section(tmp_path: Path, *lines: Any, room: int = 1_000_000, tail: str = "") -> Any:
    return inspector_section([read_run(run_directory(tmp_path / "run", lines, tail=tail))], room)


def _numbers(value: Any, count: int) -> list[float]:
    """As the page's script decodes them."""
    if value is None or isinstance(value, int | float):
        return [np.nan if value is None else float(value)] * count
    unit, text = (0.001, value) if isinstance(value, str) else value
    words = np.frombuffer(base64.b64decode(text), "<i2").astype(float)
    return [np.nan if word == -32768 else word * unit for word in words]


def _tokens(data: Any, completion: Any) -> list[str]:
    return [data["tokens"][at] for at in np.frombuffer(base64.b64decode(completion["k"]), "<u2")]


def test_a_completion_comes_back_as_it_was_recorded(tmp_path: Path) -> None:
    student, teacher = [-1.2346, -0.5, -17.0], [-0.2341, -40.25, -0.001]
    line = sample_line(["a", " b", "<|im_end|>"], student, teacher, special=[2], entropy=[0.1, 0.2, 0.3])
    data = _section(tmp_path, line).data
    (completion,) = data["completions"]
    assert _tokens(data, completion) == ["a", " b", "<|im_end|>"]
    assert _numbers(completion["u"], 3) == pytest.approx(student, abs=6e-4)
    assert _numbers(completion["v"], 3) == pytest.approx(teacher, abs=7e-4)  # -40.25: past thousandths in 16 bits
    assert _numbers(completion["e"], 3) == pytest.approx([0.1, 0.2, 0.3], abs=1e-5)
    assert completion["x"] == [2]
    assert completion["d"] == [3, pytest.approx(1.001 - 39.75 + 16.999, abs=2e-3), -39.75, 1]


def test_what_is_masked_is_not_known_and_adds_nothing(tmp_path: Path) -> None:
    line = sample_line(["a", "tool", "b"], [-1, None, -1], [-2, -9, -1], mask=[1, 0, 1])
    section = _section(tmp_path, line)
    (completion,) = section.data["completions"]
    assert completion["m"] == [1, 1]
    assert np.isnan(_numbers(completion["v"], 3)[1])
    assert completion["d"][:2] == [2, -1.0]
    assert "tool" not in section.html.split("push-tables")[1].split("where most")[1].split("context")[0]


def test_advantages_that_are_the_gap_are_not_held_twice(tmp_path: Path) -> None:
    same = sample_line(["a", "b"], [-1, -2], [-0.5, -3], advantages=[0.5, -1.0])
    scaled = sample_line(["a", "b"], [-1, -2], [-0.5, -3], advantages=[5.0, -10.0], row="2-b")
    first, second = _section(tmp_path, same, scaled).data["completions"]
    assert "a" not in first
    assert _numbers(second["a"], 2) == pytest.approx([5, -10], abs=1e-3)


def test_tokens_pushed_most_are_told_with_an_example_that_is_in_the_page(tmp_path: Path) -> None:
    lines = [sample_line(["The", " end", "\n"], [-3, -1, -2], [-0.5, -1, -4], row=f"{n}-a", step=n) for n in (1, 2)]
    html = str(_section(tmp_path, *lines).html)
    assert 'Pushed up most: <code class="tok up">The</code>' in html
    assert 'Pushed down most: <code class="tok down">↵</code>' in html
    assert ">+5.00<" in html
    assert ">\u22124.00<" in html
    assert 'href="#completion-0-0"' in html
    assert "44% is down, and 100% is in the first 10 tokens" in html


def test_tokens_of_no_weight_are_not_pushed(tmp_path: Path) -> None:
    html = str(_section(tmp_path, sample_line(["x", "y"], [-1, -1], [-5, -2], weights=[0, 0.1])).html)
    assert "y</code>" in html
    assert "x</code>" not in html


def test_a_teacher_that_agrees_everywhere_is_said(tmp_path: Path) -> None:
    for teacher in (-1.0, -1.0005):
        assert "no push anywhere" in _section(tmp_path, sample_line(["x"], [-1], [teacher])).html
    assert "no push anywhere" not in _section(tmp_path, sample_line(["x"], [-1], [-1.1])).html


def test_completions_that_were_cut_are_counted(tmp_path: Path) -> None:
    lines = [sample_line(["x"], [-1], [-2], row=f"{n}-a", finish_reason="length") for n in range(3)]
    assert "(4 completions, 3 cut at the limit)" in _section(tmp_path, *lines, sample_line(["y"], [-1], [-2])).html


def test_the_push_of_the_beginning_stands_beside_how_much_of_the_tokens_it_is(tmp_path: Path) -> None:
    teacher = [-3.0] * 10 + [-2.0] * 10
    html = _section(tmp_path, sample_line(["x"] * 20, [-1] * 20, teacher)).html
    assert "A token is pushed by 1.50 on average, up or down." in html
    assert "67% is in the first 10 tokens of completions, which are 50% of their tokens." in html


def test_of_a_run_that_trained_the_evaluations_are_not_in_the_sums(tmp_path: Path) -> None:
    before = sample_line(["old"], [-1], [-9], stage="before", step=0)
    html = _section(tmp_path, before, sample_line(["new"], [-1], [-2])).html
    assert "new</code>" in html
    assert "old</code>" not in html
    assert "old</code>" in _section(tmp_path, before).html


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    texts = [*HOSTILE, *MIXED]
    numbers = [-1.0] * len(texts)
    line = sample_line(texts, numbers, [-3.0 + at % 4 for at in range(len(texts))], route=HOSTILE[0], prompt=HOSTILE[1])
    section = _section(tmp_path, line)
    assert _tokens(section.data, section.data["completions"][0]) == texts
    page = str(section.html) + json_in_html(section.data)
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page
    page.encode()


def test_lines_that_are_no_completion_are_counted(tmp_path: Path) -> None:
    good = sample_line(["a"], [-1], [-2])
    bad = [{**good, "tokens": ["a", "b"]}, {"step": 1}, {**good, "mask": [1, 1]}, {**good, "stage": 1, "split": "x"}]
    section = _section(tmp_path, good, *bad, tail='{"step": 1, "tok')
    assert "5 lines of samples.jsonl cannot be read" in section.html
    assert len(section.data["completions"]) == 1


def test_a_run_without_completions_says_so(tmp_path: Path) -> None:
    section = _section(tmp_path)
    assert section.data is None
    assert "No completions were recorded" in section.html


def test_lines_of_earlier_versions_are_read(tmp_path: Path) -> None:
    lines = [sample_line(["a"], [-1], [-2], stage="before", step=step) for step in (0, 4)]
    for line in lines:
        del line["stage"]
    assert [stage for _, _, stage in _section(tmp_path, *lines).data["sources"]] == ["before", "during"]


def test_a_full_page_holds_whole_evaluations_and_training_spread_over_steps_and_routes(tmp_path: Path) -> None:
    lines = long_run_lines(2000)
    section = _section(tmp_path, *lines, room=100_000)
    data = section.data
    shown = [data["sources"][each["s"]] for each in data["completions"]]
    assert sum(stage != "train" for *_, stage in shown) == 40
    trained = [
        (step, data["routes"][each["r"]])
        for (_, step, stage), each in zip(shown, data["completions"], strict=True)
        if stage == "train"
    ]
    assert 60 < len(trained) < 1000
    for low in range(0, 100, 20):
        assert {route for step, route in trained if low < step <= low + 20} == {"short", "list"}
    assert f"{len(shown):,} of 2,000 recorded completions are in this page" in section.html
    assert len(json_in_html(data).encode()) < 110_000


def test_a_completion_too_long_for_the_page_leaves_room_for_others(tmp_path: Path) -> None:
    long = sample_line(["x"] * 50_000, [-1.5, *[-1] * 49_999], [-2.5, *[-1.25] * 49_999])
    section = _section(tmp_path, long, sample_line(["a"], [-1], [-2], row="2-a"), room=50_000)
    assert len(section.data["completions"]) == 1
    assert "1 of 2 recorded" in section.html


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", "␣the"),
        ("\n", "↵"),
        ("", "[part of a character]"),
        ("  ", "␣␣"),
        ("a ", "a␣"),
        (" \n", "␣↵"),
        ("\t", "⇥"),
    ],
)
def test_a_token_by_itself_shows_its_spaces(token: str, shown: str) -> None:
    assert visible(token) == shown
