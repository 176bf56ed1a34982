"""What a probe's figures mean, in words, and what to do.

A run is refused where it would certainly train something else than was asked for, and the figures show it:

- no completion ends, of at least `ENOUGH`: the end of a turn is never trained, or never sampled;
- a teacher's scores of the same tokens differ by more than its mean |gap|, and by more than rounding explains;
- tokens are not sampled from the distribution whose logprobs come back;
- another sampler's logprobs are further than `OTHER_WEIGHTS` from the student's own: it serves another model.

It is warned where the figures are a matter of degree, or may be meant so. Differences are means over tokens, in nats.
"""

from collections.abc import Iterator, Sequence

from distillkit.probe.figures import Disagreement, ProbeFigures
from distillkit.probe.teacher_verdicts import SHARE, of_gap, of_stability
from distillkit.probe.verdict import Level, ProbeVerdict

ENOUGH = 8
"""Completions without an end that show that there are none: where half of them ended, one in 256 probes would."""
SHOWN = 1e-3
"""Nats: a difference at a token that the page shows as one."""
OTHER_WEIGHTS = 0.5
"""Nats a token between sampler and student, on the mean, that no rounding and no other kernel makes."""


def verdicts_of(figures: ProbeFigures) -> tuple[ProbeVerdict, ...]:
    """Everything that a probe found, the worst first; one `ok` where nothing is wrong."""
    found = [*_of_weights(figures), *_of_sampling(figures), *_of_endings(figures)]
    for teacher in figures.teachers:
        found += [*of_stability(teacher), *of_gap(teacher)]
    order: Sequence[Level] = ("refuse", "warn")
    found.sort(key=lambda verdict: order.index(verdict.level))
    return tuple(found) or (ProbeVerdict("ok", "nothing", _all_well(figures)),)


def _all_well(figures: ProbeFigures) -> str:
    """Why nothing is wrong: differences that the figures show are small, or there are none."""
    shown = [
        (apart.mean, teacher.gap.mean_abs)
        for teacher in figures.teachers
        for apart in teacher.asked_again.values()
        if apart.largest >= SHOWN
    ]
    said: list[str] = []
    if shown:
        mean, gap = max(shown, key=lambda pair: pair[0])
        why = "too small to matter beside the gap" if mean <= SHARE * gap else "no larger than rounding makes them"
        said.append(f"differences are {why} (largest mean {mean:.3g} of {gap:.3g})")
    if isinstance(figures.weights, Disagreement) and figures.weights.largest >= SHOWN:
        apart = f"{figures.weights.mean:.3g} nats a token from the student's own"
        said.append(f"the sampler's logprobs are {apart}, which train.warn_logprob_mismatch allows")
    return "; ".join(said) or "nothing is wrong with what was measured"


def _of_weights(figures: ProbeFigures) -> Iterator[ProbeVerdict]:
    apart = figures.weights
    if not isinstance(apart, Disagreement) or apart.mean <= min(figures.warn_logprob_mismatch, OTHER_WEIGHTS):
        return
    level: Level = "warn" if apart.mean <= OTHER_WEIGHTS else "refuse"  # NaN is refused too
    what = "what samples is not the student" if level == "refuse" else "what samples is not quite the student"
    yield ProbeVerdict(
        level,
        "weights",
        f"{what}: the sampler's logprobs are {apart.mean:.3g} nats a token from the student's own ({apart.largest:.3g} "
        "at most). Does the server serve the student's own base model, in the same dtype, with the weights that were "
        "pushed, and is a merged adapter served merged?",
    )


def _of_sampling(figures: ProbeFigures) -> Iterator[ProbeVerdict]:
    test = figures.sampling
    if isinstance(test, str):
        yield ProbeVerdict(
            "refuse",
            "sampling",
            f"the sampler's logprobs are those of no distribution: {test}. They must be the log-softmax at temperature "
            "1 over the whole vocabulary (vLLM: --logprobs-mode raw_logprobs)",
        )
    elif not test.untouched:
        yield ProbeVerdict(
            "refuse",
            "sampling",
            f"completions are not sampled from the distribution whose logprobs come back: {test.finding}. Find what "
            "the server adds to the request: defaults of the model's generation_config (vLLM: --generation-config "
            "vllm), penalties, logit processors, or logprobs taken after them",
        )
    if figures.failed:
        whole = figures.failed + figures.completions
        yield ProbeVerdict("warn", "failures", f"{figures.failed} of {whole} completions failed: {figures.failure}")
    if figures.not_asked:
        names = ", ".join(map(repr, figures.not_asked))
        unprobed = f"not probed, since there are more teachers than rows: {names}; raise probe.rows"
        yield ProbeVerdict("warn", "rows", unprobed)


def _of_endings(figures: ProbeFigures) -> Iterator[ProbeVerdict]:
    if figures.ended:
        return
    what = f"none of {figures.completions} completions ended by itself within {figures.max_completion_tokens} tokens"
    todo = (
        "raise sampling.max_completion_tokens, or let the student end its turns: sampling.stop_ids (the ids that end a "
        "turn in its template), sampling.stop. If completions are meant to be cut, set probe.at_start: never"
    )
    level: Level = "refuse" if figures.completions >= ENOUGH else "warn"
    yield ProbeVerdict(level, "endings", f"{what}, so no end of a turn would be trained; {todo}")
