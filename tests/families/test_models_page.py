"""docs/models.md has every family that transformers lists: in its table, as one that is not built, or as untested."""

from pathlib import Path

import pytest
import transformers
from transformers.models.auto import modeling_auto

from families.catalogue import FAMILIES, NO_LANGUAGE_MODEL, NOT_BUILT
from families.measurement import Measurement, Trial
from families.model_types import listed_types, rest_of_page, untested_types
from families.reference import Distance
from families.table import PAGE, TableRow, differences, rows_of_page, section, write_page


def test_every_family_has_a_row_and_every_row_a_family() -> None:
    assert rows_of_page().keys() == FAMILIES.keys()


def test_what_has_no_row_stands_below_the_table() -> None:
    """A newer transformers may list more, which this page, written with another, cannot name."""
    rest = section(PAGE.read_text(encoding="utf-8"), "rest")
    if f"(transformers {transformers.__version__})" in rest:
        assert rest.strip() == rest_of_page()
    else:
        assert all(f"`{name}`" in rest for name in (*NO_LANGUAGE_MODEL, *NOT_BUILT))


def test_what_a_newer_transformers_lists_is_untested(monkeypatch: pytest.MonkeyPatch) -> None:
    known = listed_types()
    names = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    monkeypatch.setitem(names, "tomorrow", "TomorrowForCausalLM")
    assert listed_types() == {*known, "tomorrow"}
    assert "tomorrow" in untested_types()
    assert "`tomorrow`" in rest_of_page()


ROW = TableRow("a", "plain, padded", "exact", "refused", "exact", "all weights: a | b")


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    escaped = TableRow(*ROW.cells[:-1], "all weights: a \\| b")
    write_page([escaped, TableRow("b", "-", "refused", "refused", "-", "")], "nothing else", page)
    again = rows_of_page(page)
    assert again == {"a": escaped, "b": TableRow("b", "-", "refused", "refused", "-", "")}
    assert section(page.read_text(encoding="utf-8"), "rest").strip() == "nothing else"


def test_a_row_that_changed_is_told_and_remarks_may_change() -> None:
    page = {"a": ROW}
    assert differences([TableRow(*ROW.cells[:-1], "other words")], page) == []
    assert len(differences([TableRow("a", "fast, packed", *ROW.cells[2:])], page)) == 1
    assert differences([TableRow("b", *ROW.cells[1:])], page) == [f"b has no row in {PAGE.name}"]


def test_a_distance_that_is_not_a_number_is_wrong() -> None:
    trial = Trial(distances={"student": Distance(1e-6), "export": Distance(float("nan"))})
    assert (trial.verdict, trial.export_verdict) == ("exact", "wrong")
    assert Measurement("llama", "dense", {"lora": trial}).is_wrong
    assert Trial(distances={"student": Distance(float("nan"))}).verdict == "wrong"


def test_a_sentence_of_both_runs_is_said_once() -> None:
    same = Measurement("a", "dense", {"lora": Trial(refused="no"), "all weights": Trial(refused="no")})
    assert same.remarks == "no"
    other = Measurement("a", "dense", {"lora": Trial(refused="no"), "all weights": Trial(failed="run: x")})
    assert other.remarks == "lora: no. all weights: run: x"


def test_what_float32_rounds_by_is_allowed_and_said_and_no_more() -> None:
    trial = Trial(distances={"student": Distance(1e-4, rounding=4e-5)})
    assert trial.verdict == "exact"
    assert "rounds" in Measurement("a", "dense", {"lora": trial}).remarks
    assert Trial(distances={"student": Distance(1e-4, rounding=1e-6)}).verdict == "wrong"
    assert Trial(distances={"student": Distance(1e-2, rounding=1.0)}).verdict == "wrong"
