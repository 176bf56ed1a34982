r"""A divergence of the next-token distributions of student and teacher, at each sampled position.

`divergence_formulas.py` has the formulas and their sources. The gradient is the whole one through the student's
distribution at a position; the prefixes, which the policy sampled, are held constant. With a top-K support S

    tail: true     the divergence of K + 1 outcomes: those of S, and all others together. 0 if and only if both sides
                   agree there; never more than the divergence of the whole distributions.
    tail: false    the sum over S alone, of probabilities that do not sum to 1: no divergence. `reverse` and `skew` are
                   below 0 where the student gives less than the teacher to all of S, so they empty it. `forward` is
                   least where the student gives all that it has to S, in the teacher's proportions. `jsd` does not
                   see how much the student gives to the outside, beyond what S lacks.

Left out: credit for later tokens, as in GKD; and the factor temperature^2 of Hinton et al., as in TRL.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from distillkit import NextTokenDivergence, Positions, TokenLoss
from distillkit_builtin.losses.distribution_loss import EMPTIES_THE_TOPK, DistributionLoss

BETAS = {"jsd": 0.5, "skew": 0.1}
"""The papers' own."""
WITHOUT_TAIL = {
    "reverse": EMPTIES_THE_TOPK,
    "skew": EMPTIES_THE_TOPK,
    "forward": "the student is taught to give the top-K all probability, in the teacher's proportions",
    "jsd": "what both sides give to other ids is not compared",
}
"""What comes of a direction without its tail."""


class Divergence(DistributionLoss):
    """Train on a divergence of whole or top-K next-token distributions: reverse or forward KL, JSD, skew KL."""

    name: ClassVar[str] = "divergence"

    direction: Literal["reverse", "forward", "jsd", "skew"] = Field(
        "reverse",
        description="`reverse`: KL(student || teacher); `forward`: KL(teacher || student); `jsd`: generalized "
        "Jensen-Shannon; `skew`: KL(student || beta student + (1 - beta) teacher).",
    )
    beta: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Of `jsd`, as TRL's: 0 is forward KL, 1 reverse KL (null: 0.5); of `skew`: the student's share "
        "(null: 0.1).",
    )
    temperature: float = Field(
        1.0, gt=0, description="Both sides' distributions are taken at this temperature; with `full` alone."
    )

    @model_validator(mode="after")
    def _require_options_that_count(self) -> "Divergence":
        if self.beta is not None and self.direction not in BETAS:
            raise ValueError(f"direction {self.direction} has no beta; leave it out, or take jsd or skew")
        if self.direction == "skew" and self.beta == 1:
            raise ValueError("direction skew with beta 1 compares the student with itself; take less")
        if self.temperature != 1 and self.support != "full":
            raise ValueError("a temperature needs whole distributions: take support: full, or leave it out")
        return self

    def without_tail(self) -> str:
        """By direction."""
        return WITHOUT_TAIL[self.direction]

    def options(self) -> Mapping[str, JsonValue]:
        """All, with the `beta` that counts."""
        return {**super().options(), "beta": BETAS.get(self.direction, 0.0) if self.beta is None else self.beta}

    def token_loss(self) -> TokenLoss:
        """`divergence`, below."""
        return divergence

    def minimises(self) -> NextTokenDivergence | None:
        """The divergence on the support, with its tail; None without: what is minimised then is no divergence."""
        return partial(divergence_of_tables, options=self.options()) if self.tail else None


def divergence(positions: Positions, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401 - a torch tensor
    """[n] the divergence at each position, in nats, gradient through the student."""
    from distillkit_builtin.losses.divergence_formulas import at_support

    return _between(*at_support(positions, options), options)


def divergence_of_tables(student: Any, teacher: Any, sampling: Any, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401
    """The same of whole distributions [n, V]."""
    from distillkit_builtin.losses.divergence_formulas import of_tables

    return _between(*of_tables(student, teacher, sampling, options), options)


def _between(student: Any, teacher: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401
    from distillkit_builtin.losses.divergence_formulas import between, softened

    sides = (softened(side, options["temperature"]) for side in (student, teacher))
    return between(options["direction"], options["beta"], *sides)
