"""The share of final answers that equal the expected one."""

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, field_validator

from distillkit import EvalContext, EvalResult, Evaluator, Measure, Rollout, Row, RowValue


class ExactMatch(Evaluator):
    """Share of held-out completions whose final answer equals the row's `expected_answer`, and how many hold no answer.

    A row without an expected answer does not count, nor does one whose completion failed.
    """

    name: ClassVar[str] = "exact_match"
    measures: ClassVar[Mapping[str, Measure]] = {
        "exact_match": Measure("right answers", "higher", "share"),
        "no_answer_fraction": Measure("without an answer", "lower", "share"),
        "no_expected_answer": Measure("no row has an expected_answer", unit="count"),
    }

    pattern: str = Field(
        r"^\s*Final:\s*(.+?)\s*$",
        description="Regular expression for the last non-empty line; its first group is the answer.",
    )

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        if groups < 1:
            raise ValueError("needs a group around the answer, such as `Final: (.+)`")
        return pattern

    async def evaluate(self, context: EvalContext) -> EvalResult:
        """Compare after normalising space, commas and case; no metrics where nothing can be compared."""
        rows = {row.row_id: row for row in context.rows if row.expected_answer is not None}
        if not rows:
            return EvalResult({"no_expected_answer": 1.0})
        compared = [
            (rollout, rows[rollout.key.row_id]) for rollout in await context.rollouts() if rollout.key.row_id in rows
        ]
        by_route: dict[str, list[tuple[Rollout, Row]]] = {}
        for rollout, row in compared:
            by_route.setdefault(context.route(row).label, []).append((rollout, row))
        routes = {route: self._measure(mine) for route, mine in by_route.items()}
        return EvalResult(self._measure(compared), routes, self._by_row(compared))

    def _by_row(self, compared: list[tuple[Rollout, Row]]) -> dict[str, dict[str, RowValue]]:
        answers = {row.row_id: self.answer(rollout.text) for rollout, row in compared}
        return {
            "exact_match": {row.row_id: RowValue(float(_is_right(answers[row.row_id], row))) for _, row in compared},
            "no_answer_fraction": {row_id: RowValue(float(answer is None)) for row_id, answer in answers.items()},
        }

    def _measure(self, compared: list[tuple[Rollout, Row]]) -> dict[str, float]:
        answers = [self.answer(rollout.text) for rollout, _ in compared]
        if not answers:
            return {}
        right = [_is_right(answer, row) for answer, (_, row) in zip(answers, compared, strict=True)]
        unanswered = sum(answer is None for answer in answers)
        return {
            "exact_match": sum(right) / len(right),
            "no_answer": float(unanswered),
            "no_answer_fraction": unanswered / len(right),
        }

    def answer(self, text: str) -> str | None:
        """The normalised answer of a completion, or None where its last non-empty line holds none."""
        lines = [line for line in text.splitlines() if line.strip()]
        found = re.search(self.pattern, lines[-1]) if lines else None
        answer = found.group(1) if found else None  # an optional group may match nothing
        return None if answer is None else normalised(answer)


def _is_right(answer: str | None, row: Row) -> bool:
    return answer is not None and answer == normalised(row.expected_answer or "")


def normalised(answer: str) -> str:
    """Without spaces and commas, in one case: `1, 234` and `1234` are the same answer."""
    return re.sub(r"[\s,]+", "", answer).casefold()
