import math

import numpy as np
import pytest
from helpers import reference_loss
from hypothesis import given
from hypothesis import strategies as st

from distillkit.records import ScoredRollout
from distillkit.testing import FakeStudent, check_plugin, complete_batch, make_rollout, make_row, make_scored
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

LOGPROB = st.floats(-30, 0, width=32)
TOKEN = st.tuples(LOGPROB, LOGPROB, st.booleans())
STEP = st.lists(st.lists(TOKEN, min_size=1, max_size=8), min_size=1, max_size=6)


def scored_of(step: list[list[tuple[float, float, bool]]]) -> list[ScoredRollout]:
    result = []
    for line, tokens in enumerate(step, start=1):
        theirs, ours, mask = (list(column) for column in zip(*tokens, strict=True))
        row = make_row(str(line), line=line)
        rollout = make_rollout([1] * len(tokens), ours, row=row, mask=[bool(keep) for keep in mask])
        result.append(make_scored(rollout, theirs, row=row))
    return result


@pytest.mark.parametrize("normalization", ["token_mean", "sequence_mean", "sum"])
@given(step=STEP.filter(lambda step: any(keep for tokens in step for *_, keep in tokens)), scale=st.floats(0.1, 10))
def test_advantages_and_weights_equal_the_reference(
    normalization: str, step: list[list[tuple[float, float, bool]]], scale: float
) -> None:
    batch = complete_batch(ImportanceSampling(scale=scale), scored_of(step), normalization)  # type: ignore[arg-type]
    masks = [[keep for *_, keep in tokens] for tokens in step]
    weights = reference_loss.weights(masks, normalization)
    for datum, tokens, mask, weight in zip(batch.datums, step, masks, weights, strict=True):
        theirs, ours, _ = zip(*tokens, strict=True)
        wanted = reference_loss.advantages(theirs, ours, mask, scale)
        np.testing.assert_allclose(datum.inputs["advantages"], wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(datum.inputs["weights"], weight, rtol=1e-6)


def test_advantages_are_clipped_only_when_asked() -> None:
    scored = scored_of([[(-30.0, -1.0, True), (-1.0, -30.0, True), (-1.5, -1.0, True)]])
    assert ImportanceSampling().inputs(scored[0])["advantages"].tolist() == [-29.0, 29.0, -0.5]
    assert ImportanceSampling(advantage_clip=2).inputs(scored[0])["advantages"].tolist() == [-2.0, 2.0, -0.5]


def test_a_teacher_equal_to_the_student_has_no_advantage() -> None:
    batch = ImportanceSampling().batch(scored_of([[(-3.0, -3.0, True), (-0.5, -0.5, True)]]))
    assert not batch.datums[0].inputs["advantages"].any()


def test_it_keeps_the_contract() -> None:
    check_plugin(ImportanceSampling())


def test_the_reference_gradient_is_the_derivative_of_its_loss() -> None:
    for logprob, sampling, advantage, cap in [(-1.0, -2.0, 0.7, 20.0), (-3.0, -1.0, -2.0, 20.0), (0.0, -5.0, 1.0, 2.0)]:
        step = 1e-6
        numeric = (
            reference_loss.token_loss(logprob + step, sampling, advantage, cap)
            - reference_loss.token_loss(logprob - step, sampling, advantage, cap)
        ) / (2 * step)
        assert reference_loss.token_gradient(logprob, sampling, advantage, cap) == pytest.approx(
            numeric, rel=1e-4, abs=1e-9
        )
    assert reference_loss.token_gradient(0.0, -5.0, 1.0, 2.0) == 0.0
    assert math.isfinite(reference_loss.token_loss(0.0, -500.0, 1.0, 20.0))


async def test_the_fake_student_descends_the_loss() -> None:
    student = FakeStudent(learning_rate=0.5)
    loss = ImportanceSampling()
    uniform = -math.log(258)
    scored = scored_of([[(-0.1, uniform, True), (-0.1, uniform, True)]])
    before = await student.train(complete_batch(loss, scored))
    after = await student.train(complete_batch(loss, scored))
    assert after.metrics["train/loss"] < before.metrics["train/loss"]
