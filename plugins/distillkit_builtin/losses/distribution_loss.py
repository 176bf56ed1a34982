"""What losses over next-token distributions share: the ids at which both sides are compared, and what that needs."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from pydantic import Field, model_validator

from distillkit import Array, Batch, Loss, RunContext, ScoredRollout
from distillkit_builtin.losses.teacher_support import of_one_width, support

Support = Literal["full", "teacher_topk", "student_topk", "union"]
EMPTIES_THE_TOPK = "its sum over the top-K alone falls as the student moves probability out of them, so it empties them"
"""What comes of a KL from the student, `KL(s || ...)`, without its tail."""


class DistributionLoss(Loss):
    """Base of losses that compare two distributions on a support; several teachers are one mixture."""

    support: Support = Field(
        "full",
        description="Where both sides are compared: at all ids (`full`), at the `k` most probable of the teacher "
        "(`teacher_topk`), of the policy that sampled (`student_topk`), or of both (`union`).",
    )
    k: int | None = Field(None, ge=1, description="How many ids a top-K support has of each side.")
    tail: bool = Field(
        True, description="Whether all ids outside of a top-K support count together as one more outcome."
    )

    @model_validator(mode="after")
    def _require_k_and_tail_where_they_count(self) -> "DistributionLoss":
        if self.support != "full" and self.k is None:
            raise ValueError(f"support {self.support} needs k: a vLLM server gives 20 unless it says so, Fireworks 5")
        if self.support == "full" and self.k is not None:
            raise ValueError("k counts with a top-K support alone; leave it out, or take support: teacher_topk")
        if self.support == "full" and not self.tail:
            raise ValueError("support full has no tail; leave tail out, or take support: teacher_topk")
        return self

    def check(self, run: RunContext) -> None:
        """Say what a loss without its tail minimises; warn of one that has no use for its teacher in the end."""
        if self.tail:
            return
        empties = self.without_tail() == EMPTIES_THE_TOPK
        fix = "; set tail: true" if empties else ""
        said = f"loss {self.name} without its tail (tail: false): {self.without_tail()}{fix}"
        run.notify(said, "warning" if empties else "note")

    @abstractmethod
    def without_tail(self) -> str:
        """What comes of `tail: false`, in a sentence."""

    def needs(self) -> Mapping[str, int]:
        """`full`; or `topk`, of the teacher's ids, and `at_ids`, of the sampler's."""
        if self.support == "full":
            return {"full": 1}
        wanted = {"teacher_topk": ("topk",), "student_topk": ("at_ids",), "union": ("topk", "at_ids")}
        return dict.fromkeys(wanted[self.support], self.k or 0)

    def way_out(self, need: str, amount: int, given: int) -> str:
        """Another support, or fewer ids."""
        if need == "teachers":
            return f"take support: {self._for_several_teachers()}"
        if given:
            return "lower k"
        ways = {"at_ids": "take support: teacher_topk", "full": "take support: teacher_topk and a k"}
        return ways.get(need, "")

    def sampler_needs(self) -> Mapping[str, int]:
        """`topk` where the sampler's ids are in the support."""
        return {"topk": self.k or 0} if self.support in ("student_topk", "union") else {}

    def reads(self) -> frozenset[str]:
        """`distribution`, or `at_ids`."""
        return frozenset({"distribution" if self.support == "full" else "at_ids"})

    def max_teachers(self) -> int | None:
        """Any number, as one mixture; one with `teacher_topk`, since several must be asked of each other's ids."""
        return 1 if self.support == "teacher_topk" else None

    @classmethod
    def _for_several_teachers(cls) -> str:
        """The values of `support` that take any number of teachers."""
        *some, last = (each for each in get_args(cls.model_fields["support"].annotation) if each != "teacher_topk")
        return f"{', '.join(some)} or {last}" if some else str(last)

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        """`support_ids` and `support_logprobs` [R, K']; nothing with `full`."""
        return {} if self.support == "full" or self.k is None else support(completion, self.support, self.k)

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        """A datum a completion; tables of ids are as wide as the widest."""
        made = super().batch(scored)
        return made if self.support == "full" else of_one_width(made)
