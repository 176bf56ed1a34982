"""Figures of scored completions, from which one can tell whether a teacher can teach a student.

Of each active token `advantage = teacher_logprob - sampling_logprob`, in nats; |gap| is its size, and the mean of its
negative over what the untouched policy sampled estimates the reverse KL. What cannot be known is None (null in JSON):
nothing is estimated in its place.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from distillkit.diagnosis.scored_tokens import Estimate

LARGE = 5.0
"""Nats: beyond it one side all but excludes the token, e^5 = 148."""


@dataclass(frozen=True, slots=True)
class TenthFigures:
    """The tokens of one tenth of the completions."""

    tokens: int
    """How many there are."""
    reverse_kl: float | None
    """The mean of `sampling_logprob - teacher_logprob`, in nats a token; null without tokens."""
    share: float | None
    """Their share of the summed |gap| of all tokens; null where that is 0."""


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """One token of the vocabulary, wherever it was sampled."""

    id: int
    """Its id."""
    text: str
    """Its text, special tokens visible."""
    special: bool
    """Whether it stands for more than its text (`<|im_end|>`)."""
    count: int
    """How often it was sampled."""
    large: int
    """How often its |advantage| was over 5 nats."""
    advantage: float
    """The sum of its advantages, in nats; the tokens with the most negative sums are listed."""
    mean_advantage: float
    """The mean of them, in nats."""


@dataclass(frozen=True, slots=True)
class PromptFigures:
    """The same completions, scored behind the teacher's own prompt and behind the student's."""

    completions: int
    """Those where the two prompts differ, and both were scored."""
    own: Estimate
    """The reverse KL behind the teacher's own prompt, in nats a token."""
    student: Estimate
    """The reverse KL behind the student's."""
    difference: Estimate
    """The first less the second, token by token."""


@dataclass(frozen=True, slots=True)
class GapFigures:
    """How far the teacher is from what the student samples, and where."""

    reverse_kl: Estimate | None
    """The mean of `sampling_logprob - teacher_logprob`, in nats a token: the reverse KL, where `untouched`; null
    without a scored token."""
    per_completion: float | None
    """The same summed over a completion, in nats, on average."""
    absolute: float | None
    """The mean |gap|, in nats a token."""
    large: float | None
    """The share of tokens with an |advantage| over 5 nats."""
    large_share: float | None
    """Their share of the summed |gap|; null where that is 0."""
    tenths: tuple[TenthFigures, ...]
    """By tenth of the completion."""
    thirds: tuple[float | None, float | None, float | None]
    """The share of the summed |gap| in each third of the completion."""
    top_tenth: float | None
    """The share of the summed |gap| in the tenth of the tokens that have the largest ones."""
    end: float | None
    """The mean of `sampling_logprob - teacher_logprob` of the last token of completions that ended by themselves, in
    nats; null where none did."""
    prompt: PromptFigures | None
    """What the teacher's own prompt makes of the gap; null where it reads the student's."""
    tokens: tuple[TokenFigures, ...]
    """The tokens that the teacher is most against, by summed advantage."""
    most_large: TokenFigures | None
    """The token with the most |advantages| over 5 nats; null where none is over it."""


@dataclass(frozen=True, slots=True)
class EntropyFigures:
    """How certain both sides are, in nats a token."""

    student: Estimate | None
    """The student's: the mean of its distributions' entropies, where the sampler gives them; else the mean of
    -sampling_logprob, which is unbiased where the untouched policy sampled; null elsewhere."""
    teacher: Estimate | None
    """The teacher's likewise, over completions of its own; null where its scorer cannot write any."""
    teacher_cross: Estimate | None
    """The teacher's cross-entropy: the mean of -teacher_logprob of what the student sampled."""
    teacher_topk: float | None
    """The teacher's over what the student sampled, all outside its top-k as one outcome: a lower bound; null where its
    scores hold no top-k."""
    topk: int | None
    """The k of it."""


@dataclass(frozen=True, slots=True)
class TopkFigures:
    """The most probable next tokens of both sides, over what the student sampled."""

    k: int
    """How many of each side are compared."""
    overlap: float | None
    """The share of the student's k that are among the teacher's k; null where the sampler gives none."""
    teacher_mass: float
    """The probability that the teacher gives its own k together."""


@dataclass(frozen=True, slots=True)
class LengthFigures:
    """Completions of one side, in tokens."""

    completions: int
    """How many there are."""
    mean: float
    """Mean length."""
    median: float
    """Median length."""
    truncated: float
    """The share that was cut at `sampling.max_completion_tokens`; the others ended by themselves."""


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """All figures of the completions that one teacher scored, or of all."""

    rows: int
    """Rows with a scored completion."""
    completions: int
    """Scored completions."""
    tokens: int
    """Their active tokens."""
    gap: GapFigures
    entropy: EntropyFigures
    topk: TopkFigures | None
    """null where the teachers' scores hold no top-k."""
    student_lengths: LengthFigures | None
    """Of the scored completions."""
    teacher_lengths: LengthFigures | None
    """Of the teacher's own completions of the same prompts; null where its scorer cannot write any."""
    student_prompt: float | None
    """Mean length of the student's prompts, in tokens."""
    teacher_prompt: float | None
    """Mean length of the teacher's."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a teacher can teach a student, in figures."""

    untouched: bool
    """Whether completions were sampled from the distribution whose logprobs they carry (temperature 1, no top-p or
    top-k); else `reverse_kl` is none, and the student's entropy is not known."""
    lost: int
    """Completions that could not be sampled or scored; no figure counts them."""
    overall: RouteFigures
    """Of all completions."""
    routes: Mapping[str, RouteFigures]
    """By teacher, in the config's order."""

    def of(self, teacher: str) -> "Diagnosis":
        """That of one teacher alone."""
        mine = self.routes[teacher]
        return Diagnosis(self.untouched, self.lost, mine, {teacher: mine})
