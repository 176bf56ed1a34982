r"""Reverse KL, and forward KL besides where the teacher is uncertain.

    loss = KL(s || t) + forward_weight [H(t) > threshold] KL(t || s)

at each sampled position, of student `s` and teacher `t`, H in nats: Jin et al., "Entropy-Aware On-Policy Distillation
of Language Models", 2026, arXiv:2603.07079. There too the forward KL is added and replaces nothing; the threshold is a
fixed number, 0.8, and the weight 1 (as runs of its published code set them: the code itself was not at hand). There the
reverse KL is estimated on the sampled token, by policy gradient, and the forward KL runs over the teacher's top 16
without their tail. Here both are whole, or of the K + 1 outcomes of a top-K support, whose entropy is at most that of
the whole distribution.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue

from distillkit import NextTokenDivergence, Positions, TokenLoss
from distillkit_builtin.losses.distribution_loss import EMPTIES_THE_TOPK, DistributionLoss


class EntropyAware(DistributionLoss):
    """Train on the reverse KL, and on the forward KL too where the teacher's entropy is high."""

    name: ClassVar[str] = "entropy_aware"

    support: Literal["full", "teacher_topk"] = Field(
        "full",
        description="Where both sides are compared, and the teacher's entropy is taken: at all ids, or at the `k` most "
        "probable of the teacher.",
    )
    threshold: float = Field(0.8, ge=0, description="Nats of the teacher's entropy above which forward KL is added.")
    forward_weight: float = Field(1.0, gt=0, description="Multiplies the forward KL.")

    def without_tail(self) -> str:
        """As reverse KL."""
        return EMPTIES_THE_TOPK

    def token_loss(self) -> TokenLoss:
        """`entropy_aware`, below."""
        return entropy_aware

    def minimises(self) -> NextTokenDivergence | None:
        """The sum of both divergences, with the tail; None without."""
        return partial(entropy_aware_of_tables, options=self.options()) if self.tail else None


def entropy_aware(positions: Positions, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401 - a torch tensor
    """[n] in nats, gradient through the student."""
    from distillkit_builtin.losses.divergence_formulas import at_support

    return _of_sides(*at_support(positions, options), options)


def entropy_aware_of_tables(student: Any, teacher: Any, sampling: Any, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401
    """The same of whole distributions [n, V]."""
    from distillkit_builtin.losses.divergence_formulas import of_tables

    return _of_sides(*of_tables(student, teacher, sampling, options), options)


def _of_sides(student: Any, teacher: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    from distillkit_builtin.losses.divergence_formulas import entropy, kl

    certain = entropy(teacher) <= options["threshold"]
    return kl(student, teacher) + options["forward_weight"] * kl(teacher, student).masked_fill(certain, 0)
