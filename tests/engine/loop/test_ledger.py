from dataclasses import replace
from pathlib import Path

import pytest
from conftest import read_jsonl

from distillkit.errors import RunFailedError
from distillkit.loop.ledger import KEPT_REASONS, Ledger, Totals, failed_by_teacher
from distillkit.loop.outcomes import LostCompletion, Outcomes
from distillkit.records import ScoredRollout
from distillkit.testing import make_rollout, make_scored
from engine.loop.windows import requests_of


def outcomes_of(lost: int) -> Outcomes:
    requests = requests_of().samples
    gone = [LostCompletion(request.key, "score", "busy", True, "t") for request in requests[:lost]]
    kept: list[ScoredRollout] = []
    for request in requests[lost:]:
        one = make_scored(make_rollout([1, 2]), [-1.0, -1.0])
        object.__setattr__(one.rollout, "request", request)
        kept.append(one)
    return Outcomes(tuple(kept), tuple(gone), tuple(one.rollout for one in kept), 0.0, 0.0)


def test_every_row_and_completion_is_entered(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.jsonl", 0.5) as ledger:
        ledger.admit(requests_of())
        ledger.settle(1, requests_of(), outcomes_of(lost=3))
    entries = read_jsonl(tmp_path / "l.jsonl")
    assert [entry["outcome"] for entry in entries] == ["failed", "trained", "trained", "trained"]
    assert entries[1]["completions"] == [
        {"sample": 0, "outcome": "failed", "stage": "score", "reason": "busy", "retryable": True, "teacher": "t"},
        {"sample": 1, "outcome": "trained", "tokens": 2},
    ]
    assert ledger.totals == Totals(4, 3, 1, 0, 8, 5, 3, 10)
    assert Totals.restored(ledger.totals.to_save()) == ledger.totals
    ledger.require_balance()


def test_too_many_failed_rows_end_the_run_with_the_reasons_before_what_is_left_is_trained(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl", 0.2)
    with pytest.raises(
        RunFailedError, match=r"1 of 4 rows failed, more than train.max_failed_fraction=0.2 .*busy \(2x\)"
    ):
        ledger.require_few_failures(requests_of(), outcomes_of(lost=2))
    ledger.settle(1, requests_of(), outcomes_of(lost=0))
    ledger.require_few_failures(requests_of(), outcomes_of(lost=2))  # 1 of 8
    ledger.settle(2, requests_of(), outcomes_of(lost=2))
    with pytest.raises(RunFailedError, match="3 of 12 rows failed"):
        ledger.require_few_failures(requests_of(), outcomes_of(lost=4))
    assert len(read_jsonl(tmp_path / "l.jsonl")) == 8


def test_a_run_that_trained_nothing_is_an_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl", 1.0)
    ledger.admit(requests_of())
    ledger.settle(1, requests_of(), outcomes_of(lost=8))
    with pytest.raises(RunFailedError, match="nothing was trained: all 8 completions failed; reasons: busy"):
        ledger.require_balance()


def test_a_row_that_came_in_and_did_not_go_out_is_found(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl", 1.0)
    ledger.admit(requests_of())
    ledger.admit(requests_of())
    ledger.settle(1, requests_of(), outcomes_of(lost=0))
    with pytest.raises(RunFailedError, match="the ledger does not add up"):
        ledger.require_balance()
    assert Totals.restored(ledger.totals.to_save()).rows_admitted == 4  # who goes on admits again what is in flight


def test_failures_are_counted_by_teacher() -> None:
    assert failed_by_teacher(outcomes_of(lost=3).lost) == {"t": 3}


def test_reasons_that_come_once_each_take_no_more_memory_with_every_step(tmp_path: Path) -> None:
    requests = requests_of()
    with Ledger(tmp_path / "l.jsonl", 1.0) as ledger:
        for step in range(KEPT_REASONS):
            reasons = ("busy", f"row {step} is odd")
            lost = [
                LostCompletion(request.key, "score", reason, True, "t")
                for request, reason in zip(requests.samples, reasons, strict=False)
            ]
            ledger.settle(step, requests, replace(outcomes_of(lost=2), lost=tuple(lost)))
        assert len(ledger._reasons) <= KEPT_REASONS
        assert ledger.reasons().startswith(f"; reasons: busy ({KEPT_REASONS}x); ")
