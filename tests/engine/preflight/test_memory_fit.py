"""What plugins say of memory is added up, held against what is there, and said with what would lower it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from distillkit import InputError, MemoryPart, MemoryReport, MemoryUse, RunConfig, RunContext
from distillkit.cli.memory_rows import memory_rows
from distillkit.memory import GIB, DeviceMemory, gib
from distillkit.preflight.memory_fit import device_fits, require_memory
from distillkit.preflight.prepared_run import prepare_run
from distillkit.registry import Registry
from distillkit.roles.plugin import CheckReport
from distillkit.testing import FakeScorer, FakeStudent, make_context
from distillkit.testing.builders import TEST_PLAN

Make = Callable[..., RunConfig]


def use(part: MemoryPart, gigabytes: float, what: str = "x", device: str = "gpu") -> MemoryUse:
    return MemoryUse(device, part, what, int(gigabytes * GIB))


def device(total: float = 80, free: float = 79, name: str = "gpu", *, limit: bool = True) -> DeviceMemory:
    return DeviceMemory(name, "a card", int(total * GIB), int(free * GIB), limit)


def test_weights_and_caches_of_all_and_the_largest_phase_of_one_make_the_peak() -> None:
    student = MemoryReport(
        (device(), device(8, 8, "cpu")),
        (use("weights", 10), use("caches", 4), use("training", 20), use("training", 3), use("sampling", 22),
         use("saving", 5, device="cpu")),
    )  # fmt: skip
    teacher = MemoryReport((device(),), (use("weights", 30), use("scoring", 9)))
    gpu, host = device_fits({"student": student, "teacher": teacher})
    assert gpu.peak == (10 + 4 + 30 + 23) * GIB
    assert gpu.largest_phase == ("student", "training")
    assert (host.peak, host.largest_phase) == (5 * GIB, ("student", "saving"))
    rows = dict(memory_rows([gpu, host]))
    assert rows["memory, gpu"] == "about 67.0 GiB at the peak (training); a card has 80.0 GiB, 79.0 GiB of it free"
    assert rows["  always"] == "40.0 GiB: 30.0 GiB x (teacher), 10.0 GiB x (student)"
    assert rows["  in training"] == "23.0 GiB: 20.0 GiB x, 3.0 GiB x"


class Big(FakeStudent):
    """A fake that says how large it is: an option halves what it computes with."""

    name = "big"
    weights: float = 10
    half: bool = False
    light: bool = False
    offers: bool = False
    """Whether it says that `light` takes less weights."""

    def memory(self, run: RunContext) -> MemoryReport:
        assert run.plan is not None
        computes = 30 * run.plan.new_tokens / 12 / (2 if self.half else 1)
        weights = self.weights - 5 if self.light else self.weights
        uses = use("weights", weights, "its weights"), use("training", computes, "activations")
        return MemoryReport((device(48, 40),), uses, ({"half": True}, *([{"light": True}] if self.offers else [])))


@pytest.fixture
def big(fake_config: Make, registry: Registry) -> Callable[..., RunConfig]:
    registry.add(Big)

    def make(**options: Any) -> RunConfig:
        return fake_config(student={"name": "big", **options})

    return make


def test_a_run_that_is_likely_too_large_is_told_with_what_lowers_it(big: Make, registry: Registry) -> None:
    notes = prepare_run(big(), registry, print).notes
    assert [note for note in notes if "too large" in note] == [
        "likely too large for gpu (a card): 40.0 GiB at the peak, and 40.0 GiB of 48.0 GiB are free. What lowers the "
        "peak, each by itself: student.half: true (15.0 GiB less), sampling.max_completion_tokens: 6 (15.0 GiB less); "
        "or smaller models"
    ]
    assert not [note for note in prepare_run(big(half=True), registry, print).notes if "too large" in note]


def test_weights_that_cannot_fit_end_the_run_before_anything_is_loaded(big: Make, registry: Registry) -> None:
    with pytest.raises(InputError, match=r"cannot fit on gpu \(a card, 48.0 GiB\): .* alone take 50.0 GiB: 50.0 GiB"):
        prepare_run(big(weights=50), registry, print)
    prepare_run(big(weights=47), registry, print)


def test_memory_that_the_system_only_advises_is_called_about_and_refuses_nothing(
    big: Make, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft = MemoryReport((device(48, 40, limit=False),), (use("weights", 50),))
    monkeypatch.setattr(Big, "memory", lambda self, run: soft)
    prepared = prepare_run(big(weights=50), registry, print)
    (said,) = [note for note in prepared.notes if "too large" in note]
    assert "50.0 GiB at the peak, and 40.0 GiB of about 48.0 GiB are free" in said
    assert "a card has about 48.0 GiB, 40.0 GiB of it free" in dict(memory_rows(prepared.memory.fits))["memory, gpu"]


def test_where_weights_cannot_fit_only_what_lowers_them_is_advised(big: Make, registry: Registry) -> None:
    for offers, advice in (
        (False, "Take smaller models, or a larger device"),
        (True, "What lowers weights and optimizer, each by itself: student.light: true (5.0 GiB less); or smaller mo"),
    ):
        with pytest.raises(InputError) as error:
            prepare_run(big(weights=50, offers=offers), registry, print)
        assert f"50.0 GiB its weights (student). {advice}" in str(error.value)


def test_what_is_not_trained_is_not_refused_for_what_training_would_take(big: Make, registry: Registry) -> None:
    prepared = prepare_run(big(weights=50), registry, print, trains=False)
    assert prepared.memory.fits == ()
    assert not [note for note in prepared.notes if "too large" in note]


def test_nothing_is_reckoned_while_a_package_is_missing() -> None:
    plugins = {"student": Big()}
    contexts = {"student": make_context("student")}
    missing = {"student": CheckReport(missing="torch")}
    assert require_memory(plugins, contexts, TEST_PLAN, missing).fits == ()
    plan = replace(TEST_PLAN, new_tokens=12)
    assert require_memory(plugins, contexts, plan, {"student": CheckReport()}).fits[0].peak == 40 * GIB


def test_fakes_hold_next_to_nothing(fake_config: Make, registry: Registry) -> None:
    assert FakeScorer().memory(make_context()) is None
    assert prepare_run(fake_config(), registry, print).memory.fits == ()


def test_bytes_in_words() -> None:
    assert [gib(size) for size in (0, 3 * 2**20, GIB // 4, 12 * GIB)] == ["0 MiB", "3 MiB", "0.2 GiB", "12.0 GiB"]
    assert gib(2**18) == "256 KiB"
