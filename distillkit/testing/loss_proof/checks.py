"""What is looked at in one case of a loss, one after another."""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import FloatArray
from distillkit.errors import DistillkitError
from distillkit.records import ScoredRollout
from distillkit.roles.weighting import Weighting
from distillkit.testing.loss_proof.cases import LossCase
from distillkit.testing.loss_proof.divergence_gradient import divergence_gradient
from distillkit.testing.loss_proof.enumeration import Masks
from distillkit.testing.loss_proof.exact_batch import ExactBatch, Outcome
from distillkit.testing.loss_proof.why_another import why_another, why_no_token, why_nothing
from distillkit.testing.proof_result import EXPECTED, ProofCheck, ProofResult

TOLERANCE = 1e-6
"""Of the length of the gradients that make the expected one: records and losses compute inputs in float32."""
ORDER_TOLERANCE = 1e-9
"""Nats, relative: float64 in another order."""
CHUNKS = (1, 2, 5, 9)
"""Positions of the first chunks; the rest is the last."""
BEHIND = ((math.nan, math.nan), (-7.0, -2.0))
"""What may stand behind a mask in what the sampler, and in what scorers give."""
EACH = "loss of each position"


def checks_of(case: LossCase) -> Iterator[ProofCheck]:
    """In order; nothing more where the loss cannot be computed, or has no gradient that others could be held to."""
    try:
        outcome = case.outcome
    except DistillkitError as error:
        yield ProofCheck(EACH, "failed", str(error))
        return
    finite = bool(torch.isfinite(outcome.losses).all() and torch.isfinite(outcome.gradients).all())
    if not finite:
        yield ProofCheck(EACH, "failed", "loss or gradient is not finite, for distributions without zeros")
        return
    if outcome.scale <= outcome.rounding:
        yield ProofCheck(EACH, "failed", why_no_token(outcome))
        return
    yield ProofCheck(EACH, "passed", "finite, with gradient, from what reads() and needs() say alone")
    yield _independent(case)
    if case.teachers == 1 or "topk" not in case.loss.needs():  # each teacher's own top-K is not in their mixture
        yield _expected_gradient(case)
    yield from _teacher_checks(case) if case.loss.needs() else _no_teacher_checks(case)
    yield _masks(case)
    yield _weights(case)


def _check(name: str, passed: bool, sentence: str, why: str) -> ProofCheck:
    result: ProofResult = "passed" if passed else "failed"
    return ProofCheck(name, result, sentence if passed else why)


def _expected_gradient(case: LossCase) -> ProofCheck:
    name, divergence = EXPECTED, case.loss.minimises()
    if divergence is None:
        return ProofCheck(name, "not claimed", "minimises() is None")
    try:
        wanted = divergence_gradient(divergence, case.policies)
    except DistillkitError as error:
        return ProofCheck(name, "failed", str(error))
    outcome = case.outcome
    off = float((outcome.expected - wanted).norm()) / outcome.scale
    if off <= TOLERANCE:
        return ProofCheck(name, "passed", f"is that of what it minimises, to {max(off, 1e-16):.0e}")
    return ProofCheck(name, "failed", why_another(outcome, wanted, case))


def _teacher_checks(case: LossCase) -> Iterator[ProofCheck]:
    outcome, other, equal = case.outcome, _run(case, "other"), _run(case, "equal")
    felt = outcome.norm > outcome.nothing
    yield _check("teacher felt", felt, f"a gradient of {outcome.norm:.2g} in expectation", why_nothing(outcome))
    yield _equal_teacher(case, equal)
    apart = float((outcome.expected - other.expected).norm())
    yield _check(
        "another teacher",
        apart > outcome.nothing,
        "another gradient",
        f"its expected gradients under two teachers are {apart:.0e} apart: what it trains does not depend on them",
    )


def _equal_teacher(case: LossCase, equal: Outcome) -> ProofCheck:
    """No gradient is left. A loss that claims no divergence may have one (an anchor does): it is said, and no more."""
    name = "equal teacher"
    if equal.norm <= max(TOLERANCE * case.outcome.scale, case.outcome.rounding):
        return ProofCheck(name, "passed", "no gradient")
    sentence = (
        f"its expected gradient is {equal.norm:.2g} long where the teacher is the student itself (from one unlike it: "
        f"{case.outcome.norm:.2g}): it pulls the student away from a teacher that it has reached"
    )
    return ProofCheck(name, "not claimed" if case.loss.minimises() is None else "failed", sentence)


def _no_teacher_checks(case: LossCase) -> Iterator[ProofCheck]:
    """A loss without needs promises nothing of teachers, and must not read them."""
    for name in ("teacher felt", "equal teacher"):
        yield ProofCheck(name, "not claimed", "needs() is empty: it reads no teacher")
    apart = float((case.outcome.gradients - _run(case, "other").gradients).norm())
    yield _check(
        "another teacher",
        apart <= TOLERANCE * case.outcome.scale,
        "the same gradient: needs() is empty",
        f"needs() is empty, and gradients under two teachers are {apart:.2g} apart: say what it needs of scorers",
    )


def _run(case: LossCase, policies: str) -> Outcome:
    return ExactBatch.of(case.loss, getattr(case, policies)).run()


def _independent(case: LossCase) -> ProofCheck:
    """In another order, cut into chunks; one of a single position."""
    count = len(case.batch.ids)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    parts = list(order.split([*CHUNKS, count - sum(CHUNKS)]))
    whole, cut, name = case.outcome, case.batch.run(parts), "independent positions"
    at = int((whole.losses - cut.losses).abs().argmax())
    chunk = next(len(part) for part in parts if at in part)
    one, another = float(whole.losses[at]), float(cut.losses[at])
    if abs(one - another) > ORDER_TOLERANCE * max(1.0, abs(one)):
        why = f"is {one:.4g} in a call with all {count} and {another:.4g} in one with {chunk - 1} others"
        return ProofCheck(name, "failed", f"the loss of a position depends on others: it {why}")
    apart = float((whole.gradients - cut.gradients).norm())
    return _check(
        name,
        apart <= ORDER_TOLERANCE * max(whole.scale, 1e-3),
        "the same in another order and in other chunks",
        f"gradients are {apart:.2g} apart in other chunks: that of a position depends on others",
    )


def _masks(case: LossCase) -> ProofCheck:
    """What stands behind a mask, NaN or a number, makes no difference."""
    size = case.policies.vocabulary**2
    runs = [ExactBatch.of(case.loss, case.policies, Masks.every_third(size, *behind)).run().losses for behind in BEHIND]
    apart = float((runs[0] - runs[1]).abs().max())
    return _check(
        "masks",
        apart <= ORDER_TOLERANCE,
        "what stands behind a mask changes nothing",
        f"losses are {apart:.2g} apart where NaN or another number stands behind a mask: a token that was not sampled "
        "has an influence on others of its completion (in inputs() or batch())",
    )


class _LastTwice(Weighting):
    """The last token of each completion counts twice."""

    name: ClassVar[str] = "last_twice"

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """Ones, and a two."""
        return [np.r_[np.ones(len(completion.rollout.token_ids) - 1), 2.0].astype(np.float32) for completion in step]


def _weights(case: LossCase) -> ProofCheck:
    """A doubled weight doubles a token's gradient, and changes no other."""
    batch, outcome = case.batch, case.outcome
    factor: Tensor = 1.0 + batch.last.double()
    twice = ExactBatch.of(case.loss, case.policies, weightings=[_LastTwice()]).run()
    apart = float((twice.gradients - factor[:, None] * outcome.gradients).norm())
    return _check(
        "weights",
        apart <= ORDER_TOLERANCE * max(outcome.scale, 1e-3),
        "a doubled weight doubles a token's gradient",
        f"gradients are {apart:.2g} off where the weight of each completion's last token is doubled",
    )
