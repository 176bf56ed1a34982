"""Scored completions whose figures can be computed by hand."""

from collections.abc import Sequence
from dataclasses import replace

from distillkit.diagnosis.figures_of import Measured, TokenNames
from distillkit.records import FinishReason, Rollout, ScoredRollout
from distillkit.testing import ByteTokenizer, make_rollout, make_row, make_scored

NAMES = TokenNames(lambda token: ByteTokenizer().show([token]), frozenset(ByteTokenizer().special_tokens().values()))
LOGPROB = -8.0
"""Of every sampled token, so that advantages up to 8 nats can be given."""


def completion(
    advantages: Sequence[float],
    line: int = 1,
    *,
    sample: int = 0,
    ids: Sequence[int] | None = None,
    mask: Sequence[bool] | None = None,
    finish: FinishReason = "stop",
    teacher: str = "teacher",
    **row: str,
) -> ScoredRollout:
    """A completion of row `line` with these advantages."""
    of = make_row(f"question {line}", line=line, **row)
    sampled = make_rollout(ids or [65] * len(advantages), [LOGPROB] * len(advantages), row=of, sample=sample, mask=mask)
    return make_scored(
        replace(sampled, finish_reason=finish), [LOGPROB + each for each in advantages], teacher=teacher, row=of
    )


def written(lengths: Sequence[int], logprob: float = -1.0, finish: FinishReason = "stop") -> list[Rollout]:
    """Completions of these lengths, one a row, all tokens with `logprob`."""
    return [
        replace(
            make_rollout([65] * length, [logprob] * length, row=make_row(f"question {line}", line=line)),
            finish_reason=finish,
        )
        for line, length in enumerate(lengths, start=1)
    ]


def measured(scored: Sequence[ScoredRollout], **over: object) -> Measured:
    """What `diagnosis_of` reads."""
    return replace(Measured(scored, untouched=True, names=NAMES), **over)  # type: ignore[arg-type]
