"""A completion of `samples.jsonl` as the inspector reads it, of this version's runs and of earlier ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import BoolArray, FloatArray

Stage = Literal["train", "before", "during", "after"]
TopK = tuple[list[list[str]], list[list[float | None]]]
"""The most probable tokens of each position, and their logprobs."""


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One completion; arrays are [R], NaN where a number is not known or stands behind a mask."""

    step: int
    stage: Stage
    row_id: str
    sample: int
    route: str
    finish_reason: str
    question: str
    prompt: str
    teacher_prompts: Mapping[str, str]
    tokens: Sequence[str]
    special: frozenset[int]
    """Positions of special tokens."""
    active: BoolArray
    student: FloatArray
    teachers: Mapping[str, FloatArray]
    teacher: FloatArray
    """Of the row's teacher, or of the mixture of its teachers."""
    advantages: FloatArray | None
    weights: FloatArray | None
    entropy: FloatArray | None
    ranks: FloatArray | None
    """The sampled token's place in the teacher's top-K, from 1; 0 where it is not among them. Of the first teacher."""
    student_topk: TopK | None
    teacher_topk: Mapping[str, TopK]

    @property
    def gap(self) -> FloatArray:
        """[R] `teacher_logprob - sampling_logprob`, in nats; NaN behind a mask."""
        return np.where(self.active, self.teacher - self.student, np.nan)

    @property
    def push(self) -> FloatArray:
        """[R] what each token is trained with: its advantage, the gap where none is recorded, 0 where it has no weight.

        NaN where it is not known.
        """
        push = self.gap if self.advantages is None else np.where(self.active, self.advantages, np.nan)
        return push if self.weights is None else np.where(self.weights > 0, push, 0.0)


def completion_of(record: object) -> Completion:
    """The completion of a line. Raises KeyError, TypeError or ValueError for what is none."""
    line = cast(dict[str, Any], record)
    tokens = [str(token) for token in line["tokens"]]
    count = len(tokens)
    student = _numbers(line["student_logprobs"], count)
    teachers = {str(name): _numbers(values, count) for name, values in line["teacher_logprobs"].items()}
    active = np.array(line["mask"], dtype=np.bool_) if "mask" in line else np.ones(count, dtype=np.bool_)
    if not count or not teachers or active.shape != (count,):
        raise ValueError("no tokens, no teacher, or a mask of another length")
    ranks = next(iter(line.get("teacher_ranks", {}).values()), None)
    return Completion(
        int(line["step"]),
        _stage(line),
        str(line["row_id"]),
        int(line["sample"]),
        str(line["route"]),
        str(line["finish_reason"]),
        str(line["question"]),
        str(line["prompt"]),
        {str(name): str(text) for name, text in line["teacher_prompts"].items()},
        tokens,
        frozenset(int(place) for place in line.get("special", ())),
        active,
        student,
        teachers,
        _mixed(teachers, line.get("mixture")),
        _optional(line, "advantages", count),
        _optional(line, "weights", count),
        _optional(line, "entropy", count),
        None if ranks is None else np.nan_to_num(_numbers(ranks, count)),
        _topk(line["student_topk"], count) if "student_topk" in line else None,
        {str(name): _topk(table, count) for name, table in line.get("teacher_topk", {}).items()},
    )


def _stage(line: Mapping[str, JsonValue]) -> Stage:
    """Earlier versions wrote no stage: there the evaluation at step 0 is the one before training."""
    if line["split"] == "train":
        return "train"
    said = line.get("stage", "during" if line["step"] else "before")
    if said not in get_args(Stage):
        raise ValueError("no such stage")
    return cast(Stage, said)


def _numbers(values: Sequence[float | None], count: int) -> FloatArray:
    found = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if found.shape != (count,):
        raise ValueError("another number of values than tokens")
    return cast(FloatArray, found)


def _optional(line: Mapping[str, Any], name: str, count: int) -> FloatArray | None:
    return _numbers(line[name], count) if name in line else None


def _mixed(teachers: Mapping[str, FloatArray], mixture: Mapping[str, float] | None) -> FloatArray:
    """The logprobs of `sum_i w_i p_i`; without shares, as in earlier versions, each counts alike."""
    if len(teachers) == 1:
        return next(iter(teachers.values()))
    shares = mixture or dict.fromkeys(teachers, 1 / len(teachers))
    parts = [np.log(shares[name]) + values for name, values in teachers.items() if shares[name] > 0]
    return cast(FloatArray, np.logaddexp.reduce(parts))


def _topk(table: Mapping[str, Any], count: int) -> TopK:
    tokens, logprobs = table["tokens"], table["logprobs"]
    if len(tokens) != count or [*map(len, tokens)] != [*map(len, logprobs)]:
        raise ValueError("a top-K of another shape")
    return [[str(token) for token in row] for row in tokens], logprobs
