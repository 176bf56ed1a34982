import math

import numpy as np
import pytest
import torch
from helpers import reference_loss
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distillkit.arrays import logprob_array
from distillkit.records import Score, ScoredRollout, ScoreRequest
from distillkit.testing import FakeStudent, check_plugin, complete_batch, make_rollout, make_row, make_scored
from distillkit.types import Prompts, Route
from distillkit_builtin.local.training.positions import SampledPositions
from distillkit_builtin.losses.importance_sampling import (
    Anchor,
    Extrapolation,
    ImportanceSampling,
    RatioGate,
    importance_sampling,
)

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


def scored_with(
    ours: list[float], theirs: dict[str, list[float]], weights: dict[str, float], references: dict[str, list[float]]
) -> ScoredRollout:
    """One completion, scored by the teachers of a mixture and by references."""
    row = make_row("q")
    rollout = make_rollout([1] * len(ours), ours, row=row)
    prompt = rollout.request.prompt_ids

    def score(name: str, values: list[float]) -> Score:
        return Score(ScoreRequest(rollout, name, prompt), logprob_array(values), None)

    prompts = Prompts(row, Route(weights), prompt, dict.fromkeys((*theirs, *references), prompt))
    scores = {name: score(name, values) for name, values in theirs.items()}
    return ScoredRollout(rollout, prompts, scores, {name: score(name, values) for name, values in references.items()})


def advantages(loss: ImportanceSampling, scored: ScoredRollout) -> list[float]:
    found: list[float] = loss.inputs(scored)["advantages"].tolist()
    return found


def test_several_teachers_are_one_mixture_of_probabilities_whatever_their_weights_sum_to() -> None:
    theirs = {"a": [math.log(0.5), math.log(0.1)], "b": [math.log(0.1), math.log(0.3)]}
    scored = scored_with([-1.0, -2.0], theirs, {"a": 3.0, "b": 1.0}, {})
    mixed = [math.log(0.75 * 0.5 + 0.25 * 0.1) + 1, math.log(0.75 * 0.1 + 0.25 * 0.3) + 2]
    assert advantages(ImportanceSampling(), scored) == pytest.approx(mixed, abs=1e-6)
    alone = scored_with([-1.0, -2.0], {"a": theirs["a"]}, {"a": 0.2}, {})
    assert advantages(ImportanceSampling(), alone) == pytest.approx([math.log(0.5) + 1, math.log(0.1) + 2], abs=1e-6)


def test_what_is_beyond_the_teacher_lies_on_the_line_from_the_reference() -> None:
    scored = scored_with([-1.0, -2.0], {"t": [-0.5, -3.0]}, {"t": 1.0}, {"base": [-1.5, -2.5]})

    def gaps(factor: float) -> list[float]:
        return advantages(ImportanceSampling(extrapolate=Extrapolation(reference="base", factor=factor)), scored)

    assert gaps(1.0) == [0.5, -1.0]
    assert gaps(1.5) == [1.0, -1.25]
    assert gaps(0.5) == [0.0, -0.75]


def test_an_anchor_adds_the_gap_to_its_policy() -> None:
    scored = scored_with([-1.0, -2.0], {"t": [-0.5, -3.0]}, {"t": 1.0}, {"start": [-1.5, -2.5]})
    assert advantages(ImportanceSampling(anchor=Anchor(weight=0.5)), scored) == [0.25, -1.25]
    both = ImportanceSampling(anchor=Anchor(weight=0.5), extrapolate=Extrapolation(reference="start", factor=2.0))
    assert both.references() == ("start",)
    assert advantages(both, scored) == [1.25, -1.75]


def test_a_control_gives_every_token_one_negative_advantage_and_stands_alone() -> None:
    scored = scored_with([-1.0, -2.0], {"t": [-0.5, -3.0]}, {"t": 1.0}, {})
    assert advantages(ImportanceSampling(control="constant", control_advantage=-0.25), scored) == [-0.25, -0.25]
    with pytest.raises(ValidationError, match="takes the place of every teacher"):
        ImportanceSampling(control="constant", anchor=Anchor())


RATIOS = [0.25, 0.5, 1.0, 1.75, 4.0]


@pytest.mark.parametrize(
    ("gate", "factors"),
    [
        (None, RATIOS),
        (RatioGate(), [0.0, 0.5, 1.0, 1.75, 0.0]),
        (RatioGate(action="cap"), [0.5, 0.5, 1.0, 1.75, 2.0]),
        (RatioGate(low=0.3, high=1.5, action="cap"), [0.3, 0.5, 1.0, 1.5, 1.5]),
    ],
)
def test_a_gate_bounds_the_ratio_or_leaves_the_token_out(gate: RatioGate | None, factors: list[float]) -> None:
    loss = ImportanceSampling(ratio_gate=gate)
    logprobs = torch.log(torch.tensor(RATIOS)).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 2.0, -0.5, 1.0])
    positions = SampledPositions(logprobs, torch.zeros(5), {"advantages": advantages})
    losses = importance_sampling(positions, loss.options())
    wanted = -torch.tensor(factors) * advantages
    torch.testing.assert_close(losses, wanted)
    losses.sum().backward()
    torch.testing.assert_close(logprobs.grad, wanted)


def test_a_ratio_of_nothing_is_capped_too() -> None:
    """The exponential of -200 is 0 in float32."""
    loss = ImportanceSampling(ratio_gate=RatioGate(action="cap"))
    logprobs = torch.tensor([-201.0, -1.0], requires_grad=True)
    positions = SampledPositions(logprobs, torch.tensor([-1.0, -1.0]), {"advantages": torch.tensor([1.0, 1.0])})
    losses = importance_sampling(positions, loss.options())
    assert losses.tolist() == [-0.5, -1.0]
    losses.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-0.5, -1.0]


def test_a_service_that_knows_no_gate_is_not_sent_one() -> None:
    assert ImportanceSampling().options_for(()) == {}
    assert ImportanceSampling(ratio_gate=RatioGate()).options_for(()).keys() == {"ratio_gate"}  # which it refuses
