"""Completions of held-out rows."""

from distillkit.records import ScoredRollout
from distillkit.testing import FakeEvalContext, make_rollout, make_row, make_scored, make_teacher


def completion(text: str, expected: object = None, *, line: int = 1, teacher: str = "a") -> ScoredRollout:
    fields = {} if expected is None else {"expected_answer": expected}
    row = make_row(f"question {line}", line=line, **fields)  # type: ignore[arg-type]
    return make_scored(
        make_rollout(list(text.encode()), row=row), [-1.5] * len(text.encode()), teacher=teacher, row=row
    )


def context(*completions: ScoredRollout) -> FakeEvalContext:
    return FakeEvalContext(completions, [make_teacher("a"), make_teacher("b")])
