"""What was sampled and scored, made into figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from distillkit.diagnosis.route_figures import (
    LARGE,
    Diagnosis,
    EntropyFigures,
    GapFigures,
    LengthFigures,
    PromptFigures,
    RouteFigures,
    TenthFigures,
    TokenFigures,
    TopkFigures,
)
from distillkit.diagnosis.scored_tokens import Doubles, Estimate, ScoredTokens, estimate, rows_of, scored_tokens
from distillkit.metrics import topk_mass, topk_overlap
from distillkit.records import Rollout, Score, ScoredRollout

SHOWN_TOKENS = 5


@dataclass(frozen=True, slots=True)
class TokenNames:
    """How tokens are shown."""

    show: Callable[[int], str]
    """The text of an id, special tokens visible."""
    special: frozenset[int]
    """The ids that stand for more than their text."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What was sampled and scored, for figures to be made of."""

    scored: Sequence[ScoredRollout]
    untouched: bool
    """`SamplingParams.is_untouched` of what sampled."""
    names: TokenNames
    lost: int = 0
    own: Mapping[str, Sequence[Rollout]] = field(default_factory=dict)
    """Teacher to its own completions, under its own prompt; without those that cannot write any."""
    student_prompt: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    """Teacher to scores of the same completions under the student's prompt, of teachers that read another."""


def diagnosis_of(measured: Measured, teachers: Sequence[str]) -> Diagnosis:
    """The figures of all completions, and of those that each of `teachers` scored."""
    return Diagnosis(
        measured.untouched,
        measured.lost,
        _route(measured, teachers),
        {teacher: _route(measured, [teacher]) for teacher in teachers},
    )


def _route(measured: Measured, teachers: Sequence[str]) -> RouteFigures:
    mine = [
        (scored, scored.scores[teacher])
        for scored in measured.scored
        for teacher in teachers
        if teacher in scored.scores
    ]
    scores = [score for _, score in mine]
    tokens = scored_tokens(scores)
    own = [rollout for teacher in teachers for rollout in measured.own.get(teacher, ())]
    complete = all(teacher in measured.own for teacher in teachers)
    rollouts = list({scored.key: scored.rollout for scored, _ in mine}.values())
    return RouteFigures(
        len({(key.row_id, key.epoch) for key in (rollout.key for rollout in rollouts)}),
        len(scores),
        len(tokens.ids),
        _gap(tokens, _prompt(measured, mine), measured.names),
        EntropyFigures(
            _student_entropy(scores, tokens, untouched=measured.untouched),
            _own_entropy(own) if measured.untouched and complete else None,
            estimate(-tokens.teacher, tokens.rows),
            *_topk_entropy(scores),
        ),
        _topk(scores),
        _lengths(rollouts),
        _lengths(own) if complete else None,
        _mean([len(score.request.rollout.request.prompt_ids) for score in scores]),
        _mean([len(score.request.prompt_ids) for score in scores]),
    )


def _gap(tokens: ScoredTokens, prompt: PromptFigures | None, names: TokenNames) -> GapFigures:
    sizes = np.abs(tokens.advantages)
    total, large = float(sizes.sum()), sizes > LARGE
    tenths, thirds = tokens.part(10), tokens.part(3)
    first, second, last = (_share(sizes[thirds == part], total) for part in range(3))
    largest = np.sort(sizes)[len(sizes) - -(-len(sizes) // 10) :]
    return GapFigures(
        tokens.reverse_kl(),
        -float(tokens.advantages.sum()) / tokens.completions if tokens.completions else None,
        _mean(sizes),
        _mean(large),
        _share(sizes[large], total),
        tuple(_tenth(tokens.advantages[tenths == part], total) for part in range(10)),
        (first, second, last),
        _share(largest, total),
        _mean(-tokens.advantages[tokens.ends]),
        prompt,
        *_tokens(tokens, names),
    )


def _prompt(measured: Measured, mine: Sequence[tuple[ScoredRollout, Score]]) -> PromptFigures | None:
    """Own prompt and student's, of the completions that were scored behind both."""
    others = {
        (teacher, score.request.key): score for teacher, scores in measured.student_prompt.items() for score in scores
    }
    pairs = [(score, others[key]) for _, score in mine if (key := (score.request.teacher, score.request.key)) in others]
    own, student = scored_tokens([score for score, _ in pairs]), scored_tokens([score for _, score in pairs])
    gaps = own.reverse_kl(), student.reverse_kl(), estimate(student.teacher - own.teacher, own.rows)
    if gaps[0] is None or gaps[1] is None or gaps[2] is None:
        return None
    return PromptFigures(len(pairs), gaps[0], gaps[1], gaps[2])


def _tenth(advantages: Doubles, total: float) -> TenthFigures:
    return TenthFigures(len(advantages), _mean(-advantages), _share(np.abs(advantages), total))


def _tokens(tokens: ScoredTokens, names: TokenNames) -> tuple[tuple[TokenFigures, ...], TokenFigures | None]:
    """The tokens with the most negative summed advantage, the most negative first; and the one with the most large.

    At most `SHOWN_TOKENS` of the former; of tokens with equally many large ones, that with the most negative sum.
    """
    ids, index = np.unique(tokens.ids, return_inverse=True)
    sums = np.bincount(index, tokens.advantages, len(ids))
    counts = np.bincount(index, minlength=len(ids))
    large = np.bincount(index, np.abs(tokens.advantages) > LARGE, len(ids))

    def figures(at: int) -> TokenFigures:
        token = int(ids[at])
        mean = float(sums[at] / counts[at])
        special = token in names.special
        return TokenFigures(token, names.show(token), special, int(counts[at]), int(large[at]), float(sums[at]), mean)

    order: list[int] = np.argsort(sums, kind="stable").tolist()
    most = max(order, key=lambda at: large[at], default=None)  # the first of equals
    return (
        tuple(figures(at) for at in order[:SHOWN_TOKENS] if sums[at] < 0),
        None if most is None or not large[most] else figures(most),
    )


def _own_entropy(own: Sequence[Rollout]) -> Estimate | None:
    return estimate(
        -np.concatenate([np.empty(0), *(rollout.at_active(rollout.logprobs) for rollout in own)]), rows_of(own)
    )


def _student_entropy(scores: Sequence[Score], tokens: ScoredTokens, *, untouched: bool) -> Estimate | None:
    """Of its distributions where all completions hold it; else estimated by what the untouched policy sampled."""
    rollouts = [score.request.rollout for score in scores]
    if rollouts and all("entropy" in rollout.arrays for rollout in rollouts):
        parts = [rollout.at_active(rollout.arrays["entropy"]) for rollout in rollouts]
        return estimate(np.concatenate(parts).astype(np.float64), tokens.rows)
    return estimate(-tokens.sampling, tokens.rows) if untouched else None


def _topk(scores: Sequence[Score]) -> TopkFigures | None:
    """None unless all scores hold one k."""
    mass = topk_mass(scores)
    widths = {score.arrays["topk_logprobs"].shape[1] for score in scores if "topk_logprobs" in score.arrays}
    return None if mass is None or len(widths) != 1 else TopkFigures(widths.pop(), topk_overlap(scores), mass)


def _topk_entropy(scores: Sequence[Score]) -> tuple[float | None, int | None]:
    """The mean entropy of each score's top-k with the rest as one outcome, and k; unless all scores hold one k."""
    tables = [
        score.request.rollout.at_active(score.arrays["topk_logprobs"])
        for score in scores
        if "topk_logprobs" in score.arrays
    ]
    widths = {table.shape[1] for table in tables}
    if len(tables) < len(scores) or len(widths) != 1:
        return None, None
    logprobs = np.concatenate(tables).astype(np.float64)
    inside = np.exp(logprobs)
    rest = np.clip(1 - inside.sum(axis=1), 0, 1)
    entropies = -_xlogx(inside, logprobs).sum(axis=1) - _xlogx(
        rest, np.log(rest, where=rest > 0, out=np.zeros_like(rest))
    )
    return _mean(entropies), widths.pop()


def _xlogx(probabilities: Doubles, logprobs: Doubles) -> Doubles:
    """`p log p`, 0 where p is 0."""
    return np.where(probabilities > 0, probabilities * np.where(probabilities > 0, logprobs, 0), 0)


def _lengths(rollouts: Sequence[Rollout]) -> LengthFigures | None:
    if not rollouts:
        return None
    lengths = [len(rollout.token_ids) for rollout in rollouts]
    truncated = [rollout.finish_reason == "length" for rollout in rollouts]
    return LengthFigures(len(lengths), float(np.mean(lengths)), float(np.median(lengths)), float(np.mean(truncated)))


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _share(part: Doubles, total: float) -> float | None:
    """What `part` sums to, of `total`."""
    return float(part.sum()) / total if total > 0 else None
