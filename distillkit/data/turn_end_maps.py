"""`turn_end: map`: the student's end of a turn is read as the teacher's own, and the other way round.

For such a teacher the two ids change places, in what it reads and in what it says of them. So a completion's last token
is scored as the teacher's end, and the teacher's end inside a completion, which ends nothing for the student, as what
ends nothing for the teacher: were it scored as it stands, half of the endings would be learned as a token that the
student goes on behind. Rollouts, the ledger and samples have the student's ids; this alone knows of others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from distillkit.arrays import Array, IntArray
from distillkit.frozen import FrozenDict, Value, freeze_fields
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.types import SamplingParams


@dataclass(frozen=True, slots=True)
class TurnEndMap(Value):
    """The ends of one teacher and the student, which are not the same."""

    student: tuple[int, ...]
    """What ends the student's turn; the first is what the teacher's end is for the student."""
    teacher: int
    """What ends the teacher's turn."""
    both_ways: bool = True
    """Whether the teacher's end is none for the student; where it is one too, it stays what it is."""

    def to_teacher(self, ids: IntArray) -> IntArray:
        """[R] the student's ids as the teacher reads them."""
        read = np.where(np.isin(ids, self.student), self.teacher, ids)
        return np.where(ids == self.teacher, self.student[0], read) if self.both_ways else read

    def to_student(self, ids: Array) -> Array:
        """[R, ...] the teacher's ids as the student reads them."""
        if not self.both_ways:
            return ids
        first = self.student[0]
        return np.where(ids == self.teacher, first, np.where(ids == first, self.teacher, ids))


@dataclass(frozen=True, slots=True)
class TurnEndMaps(Value):
    """Of all teachers that have one."""

    of: Mapping[str, TurnEndMap] = field(default_factory=FrozenDict)
    """Teacher name to its map; teachers whose turns end as the student's do are not in it."""

    def __post_init__(self) -> None:
        """Hold a read-only copy."""
        freeze_fields(self, "of")

    def request(self, rollout: Rollout, teacher: str, prompt_ids: IntArray) -> ScoreRequest:
        """What `teacher` is asked about a completion, behind its prompt `prompt_ids` [P']."""
        ends = self.of.get(teacher)
        return ScoreRequest(rollout, teacher, prompt_ids, None if ends is None else ends.to_teacher(rollout.token_ids))

    def score(self, score: Score) -> Score:
        """A teacher's score with the student's ids in `topk_ids`."""
        ends = self.of.get(score.request.teacher)
        if ends is None or "topk_ids" not in score.arrays:
            return score
        return replace(score, arrays={**score.arrays, "topk_ids": ends.to_student(score.arrays["topk_ids"])})

    def params(self, params: SamplingParams, teacher: str) -> SamplingParams:
        """How `teacher` itself is sampled, where the student is sampled by `params`."""
        ends = self.of.get(teacher)
        if ends is None:
            return params
        return replace(params, stop_ids=tuple(dict.fromkeys([ends.teacher, *params.stop_ids])))

    def rollout(self, rollout: Rollout, teacher: str) -> Rollout:
        """What `teacher` itself sampled, in the student's ids."""
        ends = self.of.get(teacher)
        return rollout if ends is None else replace(rollout, token_ids=ends.to_student(rollout.token_ids))
