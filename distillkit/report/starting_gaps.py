"""How far each teacher is from the student as it started, by token: from completions recorded before training.

A mean over tokens may be near 0 by chance, and once other routes have moved the student, a teacher that is the student
has a gap too. So what tells of a teacher that has nothing to teach is the size of the gaps of the untrained policy.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distillkit.arrays import FloatArray
from distillkit.files.jsonl import read_json_lines
from distillkit.frozen import Value
from distillkit.report.inspector.completion import Completion, completion_of
from distillkit.report.inspector.recorded import UNREADABLE
from distillkit.report.route_names import route_names
from distillkit.report.run_record import RunRecord


@dataclass(frozen=True, slots=True)
class StartingGap(Value):
    """Teacher and untrained student on one route, in nats a token."""

    tokens: int
    mean: float
    """Of `sampling_logprob - teacher_logprob`: the reverse KL, estimated."""
    size: float
    """The mean of its magnitude."""


def starting_gaps(run: RunRecord) -> dict[str, StartingGap]:
    """By the slug of the route; of routes whose completions were recorded before the first optimizer step."""
    names = route_names(run.config)
    gaps: dict[str, list[FloatArray]] = {}
    for completion in _untrained(run):
        known = completion.gap[np.isfinite(completion.gap)]
        gaps.setdefault(names.slug_of(completion.route), []).append(known)
    joined = {slug: np.concatenate(found) for slug, found in gaps.items()}
    return {slug: StartingGap(each.size, *_mean_and_size(each)) for slug, each in joined.items() if each.size}


def _mean_and_size(gaps: FloatArray) -> tuple[float, float]:
    return -float(gaps.mean()), float(np.abs(gaps).mean())


def _untrained(run: RunRecord) -> Iterator[Completion]:
    """Those of the evaluation before training, and of the first step, which the student as it started sampled."""
    try:
        for line in read_json_lines(run.samples):
            try:
                completion = completion_of(line)
            except UNREADABLE:
                continue
            if completion.step > 1 or completion.stage in ("during", "after"):
                return
            yield completion
    except OSError:  # the inspector says so
        return
