"""Five sentences about a diagnosis: each a fixed rule over its figures, with the numbers that decided.

1. Is there anything to learn: the reverse KL beside its standard error, by route, and what the teacher's prompt adds.
2. Where the |gap| is: by third of the completion, and in how many tokens.
3. Which tokens the teacher all but excludes: what a turn's end or a template that differ look like.
4. Whether both sides end their completions, and write as long.
5. Which side is more certain: reverse KL teaches on what the student samples, and nothing else.
"""

from collections.abc import Iterator

from distillkit.data.counted import counted
from distillkit.diagnosis.route_figures import LARGE, Diagnosis, LengthFigures, RouteFigures, TokenFigures
from distillkit.diagnosis.scored_tokens import Estimate
from distillkit.significant import significant

NOTHING = 0.05
"""Nats a token: a gap below it, two standard errors counted in, teaches nothing; where the mean |gap| is below it, it
may be rounding alone (bfloat16 makes 0.04), and is nowhere in particular."""
TOO_FAR = 2.0
"""Nats a token: models of one family that read the same text are nearer to each other."""
MOST = 0.6
"""The share of the gap in one third of the completions that is worth saying; 1/3 is even."""
LONGER = 2.0
"""How many times longer one side's completions are, that it is worth saying."""

Sentences = tuple[str, str, str, str, str]


def sentences(diagnosis: Diagnosis) -> Sentences:
    """What the figures say, in five sentences."""
    return worth(diagnosis), place(diagnosis), excluded(diagnosis), endings(diagnosis), certainty(diagnosis)


def worth(diagnosis: Diagnosis) -> str:
    """Is there anything to learn?"""
    figures = diagnosis.overall
    gap = figures.gap.reverse_kl
    if gap is None:
        return "No token was scored, so nothing can be said of this teacher."
    name = "The reverse KL (sampling minus teacher)" if diagnosis.untouched else "Sampling minus teacher"
    start = f"{name} is {plus_minus(gap)} nats a token over {counted(figures.completions, 'completion')}"
    return f"{start}: {_verdict(gap, figures)}{_routes(diagnosis)}{_prompt(figures)}."


def _verdict(gap: Estimate, figures: RouteFigures) -> str:
    if gap.standard_error is None:
        return "how far off that is cannot be said of one row, so measure more of them (--rows 64)"
    if gap.value + 2 * gap.error < NOTHING:
        return "there is nothing to learn"
    if gap.value < 2 * gap.error:
        return f"that is not told apart from none, so measure more rows (--rows {4 * figures.rows})"
    if gap.value > TOO_FAR:
        return (
            "so much that the teacher hardly expects any of this text, so compare what both sides read "
            "(`distillkit check`) before you train"
        )
    return f"there is something to learn, {nats(figures.gap.per_completion)} nats a completion"


def _routes(diagnosis: Diagnosis) -> str:
    """Which routes differ by more than two standard errors of the difference."""
    means = {name: route.gap.reverse_kl for name, route in diagnosis.routes.items()}
    known = sorted(((gap.value, name, gap) for name, gap in means.items() if gap is not None), reverse=True)
    if len(known) < 2:
        return ""
    (_, most, high), (_, least, low) = known[0], known[-1]
    shown = f"{nats(high.value)} with teacher {most!r}, {nats(low.value)} with {least!r}"
    if high.standard_error is None or low.standard_error is None:
        return f" (whether routes differ cannot be told of one row: {shown})"
    differ = high.value - low.value > 2 * (high.error**2 + low.error**2) ** 0.5
    return f" ({shown})" if differ else f" (by route the same within two standard errors: {shown})"


def _prompt(figures: RouteFigures) -> str:
    """What the teacher's own prompt makes of the gap."""
    prompt = figures.gap.prompt
    if prompt is None:
        return ""
    where = "" if prompt.completions == figures.completions else f", on the {prompt.completions} where it has one,"
    made = f"; the teacher's own prompt{where} makes {plus_minus(prompt.difference)} nats of it"
    return f"{made}, and behind the student's it would be {nats(prompt.student.value)}"


def place(diagnosis: Diagnosis) -> str:
    """Where in the completions is the gap?"""
    gap = diagnosis.overall.gap
    first, _, last = gap.thirds
    if first is None or last is None or gap.top_tenth is None or gap.absolute is None:
        return "No token has a gap: the teacher gives each exactly the student's logprob."
    if gap.absolute < NOTHING:
        return f"The mean |gap| is below {NOTHING:g} nats a token, which may be rounding: it is nowhere in particular."
    few = f"a tenth of the tokens hold {percent(gap.top_tenth)} of it"
    if first >= MOST:
        return f"{percent(first)} of the |gap| is in the first third of the completions: shorter ones would do; {few}."
    if last >= MOST:
        return f"{percent(last)} of the |gap| is in the last third of the completions, so they must not be cut; {few}."
    shares = [percent(share or 0.0) for share in gap.thirds]
    return f"{shares[0]}, {shares[1]} and {shares[2]} of the |gap| are in the thirds of the completions; {few}."


def excluded(diagnosis: Diagnosis) -> str:
    """Are there tokens that the teacher all but excludes?"""
    gap = diagnosis.overall.gap
    token = gap.most_large
    if not gap.large or token is None:
        return (
            f"No token has an |advantage| over {LARGE:g} nats: the teacher excludes nothing that the student samples."
        )
    held = percent(gap.large_share or 0.0)
    start = f"{percent(gap.large)} of the tokens have an |advantage| over {LARGE:g} nats and hold {held} of the |gap|"
    said = f"{start}: {_most_large(token, round(gap.large * diagnosis.overall.tokens))}"
    never = next((each for each in (token, *gap.tokens) if each.special and each.mean_advantage < -LARGE), None)
    if never is None:
        return f"{said}."
    return (
        f"{said}; {never.text!r} (mean advantage {nats(never.mean_advantage)}) is a special token, so the two sides "
        "end turns or read templates differently, and the student would learn never to write it."
    )


def _most_large(token: TokenFigures, every: int) -> str:
    """The token to which most of `every` large advantages belong."""
    if token.large == 1 < every:
        return f"{every} different tokens"
    most = "" if every == 1 else f" above all, {token.large} of the {every}"
    return f"{shown(token, repr(token.text))}{most}, with a mean advantage of {nats(token.mean_advantage)} nats"


def endings(diagnosis: Diagnosis) -> str:
    """Do both sides end their completions, and after how many tokens?"""
    figures = diagnosis.overall
    student, teacher = figures.student_lengths, figures.teacher_lengths
    if student is None:
        return "No completion was scored, so nothing is known of endings."
    after = f"after {counted(round(student.mean), 'token')} on average"
    parts = [f"{_ended(student)} of the student's completions end by themselves, {after}"]
    if teacher is None:
        parts.append("the teacher's own are not known, since its scorer cannot write any")
    else:
        parts.append(f"of the teacher's own {_ended(teacher)} after {teacher.mean:.0f}{_longer(student, teacher)}")
    return "; ".join([*parts, *_ending_faults(figures)]) + "."


def _ending_faults(figures: RouteFigures) -> Iterator[str]:
    student, end = figures.student_lengths, figures.gap.end
    if student is not None and student.truncated == 1:
        yield "what ends a turn is never trained"
    if end is not None and end > LARGE:
        yield f"at its end the teacher gives {nats(end)} nats less than the student, which would learn not to end"


def _ended(lengths: LengthFigures) -> str:
    return percent(1 - lengths.truncated)


def _longer(student: LengthFigures, teacher: LengthFigures) -> str:
    if student.mean >= LONGER * teacher.mean:
        return f", so the student writes {student.mean / teacher.mean:.1f} times as much"
    if teacher.mean >= LONGER * student.mean:
        return f", so the teacher writes {teacher.mean / student.mean:.1f} times as much"
    return ""


def certainty(diagnosis: Diagnosis) -> str:
    """Which side is more certain?"""
    entropy = diagnosis.overall.entropy
    student, teacher, cross = entropy.student, entropy.teacher, entropy.teacher_cross
    if cross is None:
        return "No token was scored, so no entropy is known."
    if student is None:
        return (
            "The student's entropy is not known, and sampling minus teacher is no reverse KL, since sampling is not at "
            f"temperature 1, top_p 1 and top_k 0; the teacher's cross-entropy is {nats(cross.value)} nats a token."
        )
    start = f"The student's entropy is {plus_minus(student)} nats a token"
    if teacher is None:
        least = (
            "" if entropy.teacher_topk is None else f", at least {nats(entropy.teacher_topk)} by its top-{entropy.topk}"
        )
        return f"{start}; the teacher's is not known{least}, its cross-entropy there is {nats(cross.value)}."
    compared = f"{start}, the teacher's on its own completions {plus_minus(teacher)}"
    if student.standard_error is None or teacher.standard_error is None:
        return f"{compared}: whether they differ cannot be told of one row."
    if abs(student.value - teacher.value) <= 2 * (student.error**2 + teacher.error**2) ** 0.5:
        return f"{compared}: they do not differ by more than two standard errors."
    if student.value > teacher.value:
        return f"{compared}: the student still samples what the teacher would choose among."
    return (
        f"{compared}: the student is the more certain one, and what it never samples it cannot learn from this teacher."
    )


def plus_minus(estimate: Estimate) -> str:
    """`0.45 ± 0.03`, the second the standard error."""
    error = estimate.standard_error
    return significant(estimate.value) + ("" if error is None else f" ± {significant(error, like=estimate.value)}")


def shown(token: TokenFigures, text: str) -> str:
    """`text` is the token's; where it holds a part of a character, other tokens have the same, so with its id."""
    return f"{text} (id {token.id})" if "\ufffd" in token.text else text


def nats(value: float | None) -> str:
    """Three significant figures."""
    return "unknown" if value is None else significant(value)


def percent(share: float) -> str:
    """Whole percents, but for what they would show as none."""
    return f"{share:.1%}" if 0 < share < 0.01 else f"{share:.0%}"
