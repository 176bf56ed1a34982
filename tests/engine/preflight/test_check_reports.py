"""What is not installed is said before all else, and what is wrong with one plugin hides nothing of another."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

from distillkit import RunConfig
from distillkit.errors import InputError
from distillkit.positions import READS
from distillkit.preflight.prepared_run import prepare_run
from distillkit.registry import Registry
from distillkit.roles.plugin import CheckReport
from distillkit.testing import FakeScorer, FakeStudent

MISSING = "teacher 't' needs abacus: pip install 'distillkit[abacus]'"


class NeedsPackage(FakeScorer):
    """Needs a package that is not there, and so knows no tokenizer."""

    name: ClassVar[str] = "needs"
    without_tokenizer: bool = False

    def check(self, run: Any) -> CheckReport:
        return CheckReport(missing=MISSING)

    def tokenizer(self, run: Any) -> Any:
        if self.without_tokenizer:
            raise InputError("teacher 't': names no tokenizer")
        return super().tokenizer(run)


class Wrong(FakeStudent):
    """Is refused for its options."""

    name: ClassVar[str] = "wrong"

    def check(self, run: Any) -> CheckReport:
        raise InputError("student: no such model")


class WrongScorer(FakeScorer):
    """Is refused too."""

    name: ClassVar[str] = "wrong_scorer"

    def check(self, run: Any) -> CheckReport:
        raise InputError(f"teacher {self.teacher.name!r}: no such server")


class WholeStudent(FakeStudent):
    """Says that it runs any loss."""

    name: ClassVar[str] = "whole"

    def loss_capabilities(self) -> frozenset[str]:
        return frozenset({*READS, "full"})


def refused(config: RunConfig) -> str:
    with pytest.raises(InputError) as caught:
        prepare_run(config, Registry.discover(), lambda note: None)
    return str(caught.value)


def test_a_missing_package_is_named_before_what_comes_of_it(fake_config: Callable[..., RunConfig]) -> None:
    scorer = NeedsPackage(without_tokenizer=True)
    config = fake_config(student=FakeStudent(), teachers=[{"model": "t", "scorer": scorer}])
    assert refused(config) == f"{MISSING}\nteacher 't': names no tokenizer"


def test_and_before_what_is_wrong_with_others(fake_config: Callable[..., RunConfig]) -> None:
    config = fake_config(student=Wrong(), teachers=[{"model": "t", "scorer": NeedsPackage()}])
    assert refused(config) == f"{MISSING}\nstudent: no such model"


def test_all_that_is_wrong_is_said_at_once(fake_config: Callable[..., RunConfig]) -> None:
    teachers = [{"model": "t", "scorer": WrongScorer()}]
    assert refused(fake_config(student=Wrong(), teachers=teachers)) == (
        "student: no such model\nteacher 't': no such server"
    )
    assert refused(fake_config(student=Wrong())) == "student: no such model"


def test_alone_it_stops_no_check(fake_config: Callable[..., RunConfig]) -> None:
    config = fake_config(student=FakeStudent(), teachers=[{"model": "t", "scorer": NeedsPackage()}])
    assert prepare_run(config, Registry.discover(), lambda note: None).missing == (MISSING,)


class Asked(FakeScorer):
    """Finds out in its `check` that it gives less than its options leave possible."""

    name: ClassVar[str] = "asked"
    _checked: bool = PrivateAttr(False)

    def check(self, run: Any) -> None:
        self._checked = True

    def capabilities(self) -> dict[str, int | None]:
        return {"sampled": None, "topk": 4 if self._checked else None}


def test_what_can_never_fit_is_refused_before_anything_is_checked(fake_config: Callable[..., RunConfig]) -> None:
    config = fake_config(student=WholeStudent(), teachers=[{"model": "t", "scorer": WrongScorer()}], loss="divergence")
    said = refused(config)
    assert said.startswith("scorer 'wrong_scorer' of teacher 't' gives")
    assert "needs full: take support: teacher_topk" in said
    assert "no such server" not in said


def test_what_a_check_finds_out_counts_too(fake_config: Callable[..., RunConfig]) -> None:
    loss = {"name": "divergence", "support": "teacher_topk", "k": 8}
    config = fake_config(student=WholeStudent(), teachers=[{"model": "t", "scorer": Asked()}], loss=loss)
    assert "gives sampled, topk up to 4; loss 'divergence' needs topk of 8: lower k" in refused(config)
