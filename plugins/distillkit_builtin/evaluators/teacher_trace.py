"""Which probability does the student give to what its teachers write? The off-policy look at an on-policy run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from pydantic import PrivateAttr

from distillkit import (
    EvalContext,
    EvalNeed,
    EvalRequests,
    EvalResult,
    Evaluator,
    Measure,
    PluginError,
    Rollout,
    RoutedRow,
    RowValue,
    RunContext,
    Score,
    Teacher,
    mean_over_tokens,
)

SEED = 2
"""Of the traces; no other built-in evaluator samples from teachers with this one."""


class TeacherTrace(Evaluator):
    """By how many nats a token the student's NLL of its teachers' completions of held-out rows exceeds the teachers'.

    At the first evaluation each teacher answers the held-out rows that are routed to it, under its privileged prompt.
    These traces stay for all evaluations; a resumed run samples them anew, with the same seeds. `trace_nll_gap =
    trace_student_nll - trace_teacher_nll`, in nats, each a mean over all tokens of the traces, the student's under its
    own prompt: it estimates the forward KL where teachers sample at temperature 1, and is 0 where the student writes as
    they do.
    """

    name: ClassVar[str] = "teacher_trace"
    needs: ClassVar[frozenset[EvalNeed]] = frozenset({"teacher_samples", "student_scores"})
    measures: ClassVar[Mapping[str, Measure]] = {
        "trace_nll_gap": Measure("NLL gap on teachers' texts", "lower"),
        "traces_missing": Measure("teachers' texts missing", unit="count"),
    }

    _traces: Mapping[str, Sequence[Rollout]] = PrivateAttr(default_factory=dict)

    async def open(self, run: RunContext) -> None:
        """A run has its own traces, also where one instance serves several."""
        self._traces = {}

    def requests(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher], evaluations: int) -> EvalRequests:
        """Each teacher writes a completion of each of its rows, once, and the student scores it at each evaluation."""
        routed = Counter(name for row in rows for name in row.route.teachers)
        return EvalRequests(routed, evaluations * routed.total())

    async def evaluate(self, context: EvalContext) -> EvalResult:
        """Score the traces under the policy; those that could not be sampled or scored are left out and counted."""
        if not self._traces:
            self._traces = {teacher.name: await _sample(context, teacher.name) for teacher in context.teachers}
        routes: dict[str, dict[str, float]] = {}
        pairs: list[tuple[Rollout, Score]] = []
        for teacher, traces in self._traces.items():
            scores = await context.score(traces)
            if scores is None:
                raise PluginError("teacher_trace: the student's sampler has no `score`, which `needs` asks for")
            scored = {score.request.key: score for score in scores}
            mine = [(trace, scored[trace.key]) for trace in traces if trace.key in scored]
            if mine:
                routes[teacher] = measure(mine)
            pairs += mine
        expected = sum(len(context.route(row).teachers) for row in context.rows)
        overall = measure(pairs) if pairs else {}
        metrics = {**overall, "traces_missing": float(expected - len(pairs))}
        return EvalResult(metrics, routes, {"trace_nll_gap": _by_row(pairs)} if pairs else {})


async def _sample(context: EvalContext, teacher: str) -> Sequence[Rollout]:
    traces = await context.sample_teacher(teacher, seed=SEED)
    if traces is None:
        raise PluginError(f"teacher_trace: the scorer of teacher {teacher!r} cannot sample, which `needs` asks for")
    return traces


def _by_row(traces: Sequence[tuple[Rollout, Score]]) -> dict[str, RowValue]:
    """Of each row the gaps summed over all tokens of its teachers' traces, and how many those are."""
    found: dict[str, RowValue] = {}
    for trace, score in traces:
        gaps = trace.at_active(trace.logprobs) - trace.at_active(score.logprobs)
        so_far = found.get(trace.key.row_id, RowValue(0.0, 0.0))
        total = so_far.total + float(gaps.sum(dtype=np.float64))
        found[trace.key.row_id] = RowValue(total, so_far.count + len(gaps))
    return found


def measure(traces: Sequence[tuple[Rollout, Score]]) -> dict[str, float]:
    """Means over all tokens of the traces, in nats: the teacher's NLL as it wrote them, the student's, and the gap."""
    teacher = -mean_over_tokens([trace.at_active(trace.logprobs) for trace, _ in traces])
    student = -mean_over_tokens([trace.at_active(score.logprobs) for trace, score in traces])
    return {"trace_nll_gap": student - teacher, "trace_student_nll": student, "trace_teacher_nll": teacher}
