"""Whether another sampler is the student: its logprobs beside those of the weights that are trained."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from distillkit import PluginError, Registry, Sampler
from distillkit.arrays import FloatArray, logprob_array
from distillkit.records import Failure, Rollout, Weights
from distillkit.testing import FakeStudent
from distillkit.testing.fakes import log_softmax
from distillkit.types import SampleRequest
from engine.probe.faulty import Make, config_of, levels, report_of


class OtherSampler(Sampler):
    """Samples the untrained fake student's tokens, under logprobs that are off by `off`, as of other weights."""

    name: ClassVar[str] = "other"
    off: float = 0.0

    async def sync(self, weights: Weights) -> None:
        pass

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for rollout in FakeStudent().sample(requests):
            assert isinstance(rollout, Rollout)
            yield replace(rollout, logprobs=logprob_array(rollout.logprobs + self.off))


class SayingStudent(FakeStudent):
    """Can say its own logprobs."""

    name: ClassVar[str] = "saying"
    many: bool = False
    short: bool = False
    bad: bool = False

    async def logprobs(self, rollouts: Sequence[Rollout]) -> Sequence[FloatArray] | None:
        own = log_softmax(self._logits) + (np.float32(np.nan) if self.bad else 0)
        return None if self.many else [own[rollout.token_ids][int(self.short) :] for rollout in rollouts]


@pytest.mark.parametrize(
    ("off", "warn_above", "expected"),
    [
        (0.0, 0.1, None),
        (0.09, 0.1, None),
        (-0.11, 0.1, "warn"),
        (0.09, 0.05, "warn"),
        (0.49, 0.1, "warn"),
        (-0.51, 0.1, "refuse"),
        (0.51, 0.1, "refuse"),
        (0.51, 5.0, "refuse"),
    ],
)
async def test_a_sampler_of_other_weights_is_found(
    fake_config: Make, registry: Registry, off: float, warn_above: float, expected: str | None
) -> None:
    student = SayingStudent(sampler=OtherSampler(off=off))
    train = {"warn_logprob_mismatch": warn_above}
    report = await report_of(config_of(fake_config, student=student, train=train), registry)
    assert levels(report).get("weights") == expected
    apart = report.figures.weights
    assert apart is not None
    assert not isinstance(apart, str)
    assert apart.tokens == report.figures.teachers[0].gap.tokens
    assert [apart.mean, apart.largest] == pytest.approx([abs(off)] * 2, abs=1e-5)


async def test_a_logprob_of_the_students_that_is_no_number_is_refused(fake_config: Make, registry: Registry) -> None:
    student = SayingStudent(sampler=OtherSampler(), bad=True)
    assert levels(await report_of(config_of(fake_config, student=student), registry))["weights"] == "refuse"


@pytest.mark.parametrize("student", [FakeStudent, SayingStudent])
async def test_a_student_that_samples_by_itself_is_not_compared(
    fake_config: Make, registry: Registry, student: type[FakeStudent]
) -> None:
    assert (await report_of(config_of(fake_config, student=student()), registry)).figures.weights is None


@pytest.mark.parametrize(
    "student", [FakeStudent(sampler=OtherSampler()), SayingStudent(sampler=OtherSampler(), many=True)]
)
async def test_what_a_student_cannot_say_is_reported_as_not_measured(
    fake_config: Make, registry: Registry, student: FakeStudent
) -> None:
    report = await report_of(config_of(fake_config, student=student), registry)
    assert "weights" not in levels(report)
    assert isinstance(report.figures.weights, str)
    assert f"student {student.name!r} does not compute" in report.figures.weights


async def test_logprobs_of_other_tokens_are_the_students_fault(fake_config: Make, registry: Registry) -> None:
    student = SayingStudent(sampler=OtherSampler(), short=True)
    with pytest.raises(PluginError, match="student 'saying': logprobs"):
        await report_of(config_of(fake_config, student=student), registry)
