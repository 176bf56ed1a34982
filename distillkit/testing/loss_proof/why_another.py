"""Why an expected gradient is not the one that was wanted, in a sentence with numbers."""

import torch
from torch import Tensor

from distillkit.testing.loss_proof.cases import LossCase
from distillkit.testing.loss_proof.divergence_gradient import divergence_gradient, usual_divergences
from distillkit.testing.loss_proof.exact_batch import Outcome

PARALLEL = 1e-6
"""How far from 1 the cosine of two gradients of one direction is, at most."""


def why_another(outcome: Outcome, wanted: Tensor, case: LossCase) -> str:
    """The expected gradient beside that of what the loss says that it minimises."""
    length = float(wanted.norm())
    if outcome.norm <= outcome.nothing:
        return f"{why_nothing(outcome)}. That of what it says it minimises is {length:.2g} long"
    if not length:
        return f"is {outcome.norm:.2g} long, and what it says it minimises has none"
    cosine, ratio = _cosine(outcome.expected, wanted), outcome.norm / length
    if cosine > 1 - PARALLEL:
        return (
            f"has the direction of what it says it minimises and is {ratio:.4g} times as long (cosine {cosine:.6f}): "
            f"it minimises {ratio:.4g} times that"
        )
    if cosine < -1 + PARALLEL:
        return (
            f"points the other way (cosine {cosine:.6f}, ratio {ratio:.4g}): training goes up on what it says it "
            "minimises; the sign is wrong"
        )
    said = f"is not that of what it says it minimises: cosine {cosine:.4f}, ratio {ratio:.4g}"
    found = _found(outcome, case)
    return f"{said}. It is that of the {found}" if found else said


def why_nothing(outcome: Outcome) -> str:
    """Of an expected gradient that is zero, though those of single tokens are not."""
    return (
        f"is zero ({outcome.norm:.0e}): those of single tokens ({outcome.scale:.2g} long together) cancel in "
        "expectation. What multiplies the logprob of a sampled token must depend on which token was sampled; of what "
        "does not (a divergence of the prefix, a constant), only noise is left"
    )


def why_no_token(outcome: Outcome) -> str:
    """Of gradients that are zero at every token, up to rounding."""
    return (
        f"its gradient is zero at every position ({outcome.scale:.0e} long together, which is rounding, where losses "
        f"are {outcome.size:.2g}): nothing is trained but noise. Are its weights detached? The gradient of "
        "sum_v w_v log s_v is zero where the constants w are the student's own probabilities, since those sum to 1: "
        "what one token gains, the others lose. Let the gradient through the weights, too"
    )


def _found(outcome: Outcome, case: LossCase) -> str | None:
    """Which usual divergence has this gradient."""
    for name, divergence in usual_divergences(case.k):
        usual = divergence_gradient(divergence, case.policies)
        if usual.norm() and _cosine(outcome.expected, usual) > 1 - PARALLEL:
            ratio = outcome.norm / float(usual.norm())
            return name if abs(ratio - 1) < PARALLEL else f"{name}, {ratio:.4g} times as long"
    return None


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.flatten(), other.flatten(), dim=0))
