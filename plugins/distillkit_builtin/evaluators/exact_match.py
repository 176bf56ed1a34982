"""The share of final answers that equal the expected one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import Field, field_validator

from distillkit import (
    EvalContext,
    EvalResult,
    Evaluator,
    Measure,
    Messages,
    Rollout,
    RoutedRow,
    Row,
    RowValue,
    Teacher,
)

EXPECTED = "expected_answer"
NO_LITERAL = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?P?<\w+>|\(\?[a-zA-Z]+|\{[^}]*\}")
"""What of a regular expression is no text that it looks for: escapes, classes, names of groups, flags, counts."""
WORD = re.compile(r"[^\W\d_]{2,}")


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

    def notes(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher]) -> Sequence[str]:
        """Rows whose expected answer is missing or can never be found, and prompts that do not ask for the pattern."""
        return [*_notes_on_answers([routed_row.row for routed_row in rows]), *self._note_on_prompts(rows)]

    def _note_on_prompts(self, rows: Sequence[RoutedRow]) -> Iterator[str]:
        words = literal_words(self.pattern)
        asked = sum(any(_holds(row.chat.student, word) for word in words) for row in rows)
        if words and 2 * asked < len(rows):
            yield (
                f"{len(rows) - asked:,} of {len(rows):,} held-out prompts of the student do not hold "
                f"{' or '.join(map(repr, words))}, which its `pattern` looks for in the last line of a completion: ask "
                "for it in the prompts (`End with exactly one line: Final: <answer>.`), or set `pattern` to how the "
                "student ends"
            )

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


def _holds(chat: Messages, word: str) -> bool:
    return any(word.casefold() in message.content.casefold() for message in chat)


def literal_words(pattern: str) -> list[str]:
    """The words of a regular expression that are looked for as they stand, such as `Final`."""
    return list(dict.fromkeys(WORD.findall(NO_LITERAL.sub(" ", pattern))))


def _notes_on_answers(rows: Sequence[Row]) -> Iterator[str]:
    given = [row for row in rows if row.expected_answer is not None]
    if not given:
        yield (
            f"no held-out row has `{EXPECTED}`, so that nothing is compared: add the field, make it of another "
            f'(data.format: {{{EXPECTED}: "{{{{ answer }}}}"}}), or take exact_match out of evaluators'
        )
        return
    lacking = len(rows) - len(given)
    if lacking:
        first = next(row.place for row in rows if row.expected_answer is None)
        yield f"{lacking:,} of {len(rows):,} held-out rows have no `{EXPECTED}` and are not counted (first: {first})"
    for problem, wrong in PROBLEMS:
        found = [row for row in given if wrong(row)]
        if found:
            yield f"`{EXPECTED}` of {len(found):,} of {len(rows):,} held-out rows (first: {found[0].place}) {problem}"


def _has_line_break(row: Row) -> bool:
    return isinstance(row.fields[EXPECTED], str) and len((row.expected_answer or "").strip().splitlines()) > 1


def _is_no_text(row: Row) -> bool:
    return isinstance(row.fields[EXPECTED], list | dict)


def _is_empty(row: Row) -> bool:
    return not normalised(row.expected_answer or "")


PROBLEMS = (
    (
        "holds line breaks, and one line of a completion is compared with it: keep the final answer alone, such as "
        f"data.format: {{{EXPECTED}: \"{{{{ answer.split('####')[-1] }}}}\"}} for those of GSM8K",
        _has_line_break,
    ),
    ("is a list or an object, and text is compared with it: choose one answer, as text", _is_no_text),
    ("is empty, and no answer is: take such rows out, or write null", _is_empty),
)
"""What is wrong with expected answers that nothing can equal, and how such a row is found."""


def normalised(answer: str) -> str:
    """Without spaces and commas, in one case: `1, 234` and `1234` are the same answer."""
    return re.sub(r"[\s,]+", "", answer).casefold()
