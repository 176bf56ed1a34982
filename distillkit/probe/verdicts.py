"""What a probe's figures mean, in words, and what to do.

A run is refused where it would certainly train something else than was asked for, and the figures show it:

- no completion ends, of at least `ENOUGH`: the end of a turn is never trained, or never sampled;
- a teacher's scores of the same tokens differ by more than its mean |gap|, and by more than rounding explains;
- tokens are not sampled from the distribution whose logprobs come back;
- another sampler's logprobs are further than `OTHER_WEIGHTS` from the student's own: it serves another model.

It is warned where the figures are a matter of degree, or may be meant so. Differences are means over tokens, in nats.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from distillkit.frozen import Value
from distillkit.probe.figures import AGAIN, ALONE, REPLICA, REVERSED, Disagreement, ProbeFigures, TeacherFigures

Level = Literal["ok", "warn", "refuse"]
ENOUGH = 8
"""Completions without an end that show that there are none: where half of them ended, one in 256 probes would."""
ROUNDING = 0.1
"""Nats a token that rounding explains, in bfloat16 and in other batches, on the mean over tokens."""
NOTICEABLE: Mapping[str, float] = {AGAIN: 0.02, REVERSED: 0.02, ALONE: 0.05, REPLICA: 0.05}
"""Nats a token, on the mean, below which a difference is no fault, however small the gap: bfloat16 makes 0.04 of other
batches (SmolLM2 135 M, 8 completions at once against one), and nothing of the same batch again."""
SHARE = 0.1
"""Of the mean |gap|: noise above it is worth a word."""
WIDE = 2.0
"""Nats: a single token whose scores differ by so much was not rounded."""
ABOVE = 2.0
"""How many times larger a difference must be than those that would explain it."""
ENDINGS, NEVER_ENDS = 3, -5.0
"""Ends that are enough to speak of, and the mean gap there below which the teacher would not have ended."""
MORE_THAN_ELSEWHERE = 2.0
"""How many times the mean gap between start and end that at the end must be, to be one of the end."""
START, STARTS_OTHERWISE = 2.0, 4.0
"""Nats of mean |gap| at the first tokens that are worth a word, where they are so many times those behind them."""
FAR = 5.0
"""Nats of mean |gap| with which a teacher has another text, or other tokens, in front of it."""

OTHER_WEIGHTS = 0.5
"""Nats a token between sampler and student, on the mean, that no rounding and no other kernel makes."""


@dataclass(frozen=True, slots=True)
class Verdict(Value):
    """One thing that the figures say."""

    level: Level
    what: str
    """Its kind, in one word; the same in every probe."""
    message: str
    """What was found, and what to do."""


def verdicts_of(figures: ProbeFigures) -> tuple[Verdict, ...]:
    """Everything that a probe found, the worst first; one `ok` where nothing is wrong."""
    found = [*_of_weights(figures), *_of_sampling(figures), *_of_endings(figures)]
    for teacher in figures.teachers:
        found += [*_of_stability(teacher), *_of_gap(teacher)]
    order: Sequence[Level] = ("refuse", "warn")
    found.sort(key=lambda verdict: order.index(verdict.level))
    return tuple(found) or (Verdict("ok", "nothing", "nothing is wrong with what was measured"),)


def _of_weights(figures: ProbeFigures) -> Iterator[Verdict]:
    apart = figures.weights
    if not isinstance(apart, Disagreement) or apart.mean <= min(figures.warn_logprob_mismatch, OTHER_WEIGHTS):
        return
    level: Level = "warn" if apart.mean <= OTHER_WEIGHTS else "refuse"  # NaN is refused too
    what = "what samples is not the student" if level == "refuse" else "what samples is not quite the student"
    yield Verdict(
        level,
        "weights",
        f"{what}: the sampler's logprobs are {apart.mean:.3g} nats a token from the student's own ({apart.largest:.3g} "
        "at most). Does the server serve the student's own base model, in the same dtype, with the weights that were "
        "pushed, and is a merged adapter served merged?",
    )


def _of_sampling(figures: ProbeFigures) -> Iterator[Verdict]:
    test = figures.sampling
    if isinstance(test, str):
        yield Verdict(
            "refuse",
            "sampling",
            f"the sampler's logprobs are those of no distribution: {test}. They must be the log-softmax at temperature "
            "1 over the whole vocabulary (vLLM: --logprobs-mode raw_logprobs)",
        )
    elif not test.untouched:
        yield Verdict(
            "refuse",
            "sampling",
            f"completions are not sampled from the distribution whose logprobs come back: {test.finding}. Find what "
            "the server adds to the request: defaults of the model's generation_config (vLLM: --generation-config "
            "vllm), penalties, logit processors, or logprobs taken after them",
        )
    if figures.failed:
        whole = figures.failed + figures.completions
        yield Verdict("warn", "failures", f"{figures.failed} of {whole} completions failed: {figures.failure}")
    if figures.not_asked:
        names = ", ".join(map(repr, figures.not_asked))
        yield Verdict("warn", "rows", f"not probed, since there are more teachers than rows: {names}; raise probe.rows")


def _of_endings(figures: ProbeFigures) -> Iterator[Verdict]:
    if figures.ended:
        return
    what = f"none of {figures.completions} completions ended by itself within {figures.max_completion_tokens} tokens"
    todo = (
        "raise sampling.max_completion_tokens, or let the student end its turns: sampling.stop_ids (the ids that end a "
        "turn in its template), sampling.stop. If completions are meant to be cut, set probe.at_start: never"
    )
    level: Level = "refuse" if figures.completions >= ENOUGH else "warn"
    yield Verdict(level, "endings", f"{what}, so no end of a turn would be trained; {todo}")


def _of_stability(teacher: TeacherFigures) -> Iterator[Verdict]:
    if teacher.failed:
        whole = teacher.failed + teacher.completions
        yield Verdict(
            "warn",
            "failures",
            f"teacher {teacher.teacher!r}: {teacher.failed} of {whole} scores failed: {teacher.failure}",
        )
    for how, apart in teacher.asked_again.items():
        kind, _, where = how.partition(" ")
        level = _level(apart, teacher.gap.mean_abs, NOTICEABLE[kind])
        if level == "ok" or apart.mean < ABOVE * max(
            (_mean(teacher, other) for other in EXPLAINED_BY[kind]), default=0
        ):
            continue
        words, todo = WAYS[kind]
        yield Verdict(
            level,
            kind,
            f"teacher {teacher.teacher!r} {words.format(where)}: {apart.mean:.3g} nats a token apart "
            f"({apart.largest:.3g} at most), where the mean |gap| that trains is {teacher.gap.mean_abs:.3g}. {todo}",
        )


def _mean(teacher: TeacherFigures, how: str) -> float:
    apart = teacher.asked_again.get(how)
    return 0.0 if apart is None else apart.mean


EXPLAINED_BY: Mapping[str, Sequence[str]] = {
    AGAIN: (),
    REVERSED: (AGAIN,),
    ALONE: (AGAIN, REVERSED),
    REPLICA: (AGAIN, ALONE),
}
"""A difference that is not `ABOVE` times one of these is no fault of its own."""
WAYS = {
    AGAIN: (
        "gives the same tokens other scores when it is asked again",
        "Nothing can be learned from noise: look for sampling in its path (dropout, a router with noise, quantized "
        "caches), or replicas of several models behind one address",
    ),
    REVERSED: (
        "gives the same tokens other scores in another order",
        "A request leaves something behind at the server: switch its prefix cache off, or let it answer one request at "
        "a time (concurrency.max: 1)",
    ),
    ALONE: (
        "gives the same tokens other scores beside other requests than alone",
        "A score depends on what is in the batch: look at its padding and its router's capacity, serve it in float32, "
        "or let it answer one request at a time (concurrency.max: 1)",
    ),
    REPLICA: (
        "gives the same tokens other scores at {}",
        "The replicas do not serve the same model in the same way: compare their weights, dtype, quantization and "
        "version, and take that one out of base_url meanwhile",
    ),
}
"""How a teacher was asked again, to what is wrong if its scores differ, and what to do."""


def _level(apart: Disagreement, gap: float, noticeable: float) -> Level:
    """How bad a difference is beside a mean |gap|, which may be 0: rounding is nothing to be alarmed at."""
    if apart.mean > max(gap, ROUNDING):
        return "refuse"
    return "warn" if apart.mean > max(SHARE * gap, noticeable) or apart.largest > max(gap, WIDE) else "ok"


def _of_gap(teacher: TeacherFigures) -> Iterator[Verdict]:
    who = f"teacher {teacher.teacher!r}"
    elsewhere = teacher.between.mean if teacher.between.tokens else 0.0
    if teacher.end.tokens >= ENDINGS and teacher.end.mean < min(NEVER_ENDS, MORE_THAN_ELSEWHERE * elsewhere):
        tokens = " and ".join(map(repr, teacher.end_tokens))
        yield Verdict(
            "warn",
            "turn-end",
            f"{who} would not end a turn where the student does: at the end, {tokens}, the gap is "
            f"{teacher.end.mean:.3g} nats, so the student would learn never to end. If the teacher's turn ends with "
            f"another token, let the student end with that (sampling.stop_ids or sampling.stop), or have its end "
            f"scored as the teacher's own (teachers[].turn_end: map)",
        )
    rest = teacher.between.mean_abs if teacher.between.tokens else math.inf
    if (
        not teacher.prompts_end_alike
        and teacher.first.mean_abs > START
        and teacher.first.mean_abs > STARTS_OTHERWISE * rest
    ):
        yield Verdict(
            "warn",
            "start",
            f"{who} disagrees at the first tokens most: |gap| {teacher.first.mean_abs:.3g} nats there, {rest:.3g} "
            f"behind them. Its prompts end otherwise than the student's: compare what `distillkit check` shows of "
            f"both, and the template's options (chat_template_kwargs)",
        )
    if teacher.gap.mean_abs > FAR:
        yield Verdict(
            "warn",
            "far",
            f"{who} finds nearly all that the student writes impossible: mean |gap| {teacher.gap.mean_abs:.3g} nats. "
            f"Look at the prompts that `distillkit check` shows, and whether it is the model that you meant",
        )
