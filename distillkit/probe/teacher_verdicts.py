"""What the figures of one teacher mean: whether it says the same again, and where its gap is."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from distillkit.probe.figures import AGAIN, ALONE, REPLICA, REVERSED, Disagreement, TeacherFigures
from distillkit.probe.verdict import Level, ProbeVerdict

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


def of_stability(teacher: TeacherFigures) -> Iterator[ProbeVerdict]:
    """Whether it scored everything, and said the same of the same tokens each time."""
    if teacher.failed:
        whole = teacher.failed + teacher.completions
        yield ProbeVerdict(
            "warn",
            "failures",
            f"teacher {teacher.teacher!r}: {teacher.failed} of {whole} scores failed: {teacher.failure}",
        )
    differing = {how: level for how in teacher.asked_again if (level := _level_of(teacher, how)) != "ok"}
    for how, level in differing.items():
        kind, _, where = how.partition(" ")
        apart = teacher.asked_again[how]
        words, todo = _of_replica(teacher, where, differing) if kind == REPLICA else WAYS[kind]
        yield ProbeVerdict(
            level,
            kind,
            f"teacher {teacher.teacher!r} gives the same tokens other scores {words}: {apart.mean:.3g} nats a token "
            f"apart ({apart.largest:.3g} at most), where the mean |gap| that trains is {teacher.gap.mean_abs:.3g}. "
            f"{todo}",
        )


def _level_of(teacher: TeacherFigures, how: str) -> Level:
    """How bad it is how far the teacher's scores are apart, unless another difference explains that."""
    apart, kind = teacher.asked_again[how], how.partition(" ")[0]
    explained = apart.mean < ABOVE * max((_mean(teacher, other) for other in EXPLAINED_BY[kind]), default=0)
    return "ok" if explained else _level(apart, teacher.gap.mean_abs, NOTICEABLE[kind])


def _of_replica(teacher: TeacherFigures, where: str, differing: Collection[str]) -> tuple[str, str]:
    """How a replica differs, and what to do: which one is wrong is known where most of them agree."""
    whole = 1 + sum(how.startswith(f"{REPLICA} ") for how in teacher.asked_again)
    agree = whole - sum(how.startswith(f"{REPLICA} ") for how in differing)
    if 2 * agree > whole:
        return f"at {where} than at the {agree} addresses that agree", (
            "It does not serve the same model in the same way: compare its weights, dtype, quantization and version "
            "with theirs, and take it out of base_url meanwhile"
        )
    return f"at {where} than at {teacher.compared_with}", (
        "They do not serve the same model in the same way, and which of them is right is not known: compare their "
        "weights, dtype, quantization and version, and take the wrong one out of base_url"
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
        "when it is asked again",
        "Nothing can be learned from noise: look for sampling in its path (dropout, a router with noise, quantized "
        "caches), or replicas of several models behind one address",
    ),
    REVERSED: (
        "in another order",
        "It was asked one at a time, so a request leaves something behind at the server: switch its prefix cache off "
        "(vLLM: --no-enable-prefix-caching), and look there for what else it keeps from one request to the next",
    ),
    ALONE: (
        "beside other requests than alone",
        "A score depends on what is in the batch: look at its padding and its router's capacity, serve it in float32, "
        "or let it answer one request at a time (concurrency.max: 1)",
    ),
}
"""How a teacher was asked again, to how its scores differ, and what to do."""


def _level(apart: Disagreement, gap: float, noticeable: float) -> Level:
    """How bad a difference is beside a mean |gap|, which may be 0: rounding is nothing to be alarmed at."""
    if apart.mean > max(gap, ROUNDING):
        return "refuse"
    return "warn" if apart.mean > max(SHARE * gap, noticeable) or apart.largest > max(gap, WIDE) else "ok"


def of_gap(teacher: TeacherFigures) -> Iterator[ProbeVerdict]:
    """Whether the gap is at a place, or of a size, that is no lesson."""
    who = f"teacher {teacher.teacher!r}"
    elsewhere = teacher.between.mean if teacher.between.tokens else 0.0
    if teacher.end.tokens >= ENDINGS and teacher.end.mean < min(NEVER_ENDS, MORE_THAN_ELSEWHERE * elsewhere):
        yield ProbeVerdict("warn", "turn-end", f"{who} would not end a turn where the student does: {_at_end(teacher)}")
    rest = teacher.between.mean_abs if teacher.between.tokens else math.inf
    if (
        not teacher.prompts_end_alike
        and teacher.first.mean_abs > START
        and teacher.first.mean_abs > STARTS_OTHERWISE * rest
    ):
        yield ProbeVerdict(
            "warn",
            "start",
            f"{who} disagrees at the first tokens most: |gap| {teacher.first.mean_abs:.3g} nats there, {rest:.3g} "
            f"behind them. Its prompts end otherwise than the student's: compare what `distillkit check` shows of "
            f"both, and the template's options (chat_template_kwargs)",
        )
    if teacher.gap.mean_abs > FAR:
        yield ProbeVerdict(
            "warn",
            "far",
            f"{who} finds nearly all that the student writes impossible: mean |gap| {teacher.gap.mean_abs:.3g} nats. "
            f"Look at the prompts that `distillkit check` shows, and whether it is the model that you meant",
        )


def _at_end(teacher: TeacherFigures) -> str:
    """What was found there, and what to do: nothing, where the teacher knows that end for its own."""
    tokens = " and ".join(map(repr, teacher.end_tokens))
    found = f"at the end, {tokens}, the gap is {teacher.end.mean:.3g} nats"
    if teacher.ends_as_teacher:
        return (
            f"{found}. It reads that as the end of its own turns, so it would go on at these places, and the student "
            "would learn to; no option is to be changed for that"
        )
    return (
        f"{found}, so the student would learn never to end. If the teacher's turn ends with another token, let the "
        "student end with that (sampling.stop_ids or sampling.stop), or have its end scored as the teacher's own "
        "(teachers[].turn_end: map)"
    )
