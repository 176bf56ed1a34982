"""One completion as any dialect can tell it, or as it should not be told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distillkit.records import FinishReason
from distillkit.types import SamplingParams
from distillkit_loopback.openai.faults import (
    BadLogprob,
    Distortion,
    DuplicateEntry,
    MissingEntry,
    NoIds,
    Shorter,
    SwappedEntries,
    WrongId,
)
from distillkit_loopback.openai.models import Drawn, Model


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that was likely at some place. The likeliest has rank 1."""

    token_id: int
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A token that stands at some place, and what else was likely there."""

    token_id: int
    logprob: float | None
    """None: nothing stands before it."""
    rank: int = 0
    likely: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be computed."""

    prompt: tuple[int, ...]
    params: SamplingParams
    """With `max_tokens` 0 nothing is drawn."""
    seed: int
    prompt_top: int | None
    """How many candidates come with each token of the prompt; None: its logprobs are not asked for."""
    top: int | None
    """Likewise for the completion."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What is sent back."""

    prompt_ids: tuple[int, ...]
    drawn_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt: tuple[Entry, ...] | None
    """One a token; None if not asked for."""
    drawn: tuple[Entry, ...] | None
    ids_told: bool = True

    def distorted(self, distortion: Distortion, vocabulary: int) -> "Completion":
        """With something wrong; the same where there are no logprobs in which it could show."""
        if isinstance(distortion, NoIds):
            return replace(self, ids_told=False)
        if self.prompt is not None:
            ids, entries = _distorted(self.prompt_ids, self.prompt, distortion, vocabulary)
            return replace(self, prompt_ids=ids, prompt=entries)
        if self.drawn is not None:
            ids, entries = _distorted(self.drawn_ids, self.drawn, distortion, vocabulary)
            return replace(self, drawn_ids=ids, drawn=entries)
        return self


def compute(model: Model, wanted: Wanted, *, processed: bool = False) -> Completion:
    """Draw, and look at all of it once more for the logprobs that were asked for.

    `processed`: a completion's logprobs are those at the temperature that drew it.
    """
    drawn = Drawn((), "length")
    if wanted.params.max_tokens:
        drawn = model.draw(wanted.prompt, wanted.seed, wanted.params)
    whole, length = (*wanted.prompt, *drawn.ids), len(wanted.prompt)
    prompt = completion = None
    if wanted.prompt_top is not None:
        prompt = (Entry(whole[0], None), *_entries(model, whole[:length], 1, wanted.prompt_top))
    if wanted.top is not None:
        completion = _entries(model, whole, length, wanted.top)
    if completion and processed and wanted.params.temperature > 0:
        completion = _at_temperature(model, whole, length, completion, wanted.params.temperature)
    return Completion(wanted.prompt, drawn.ids, drawn.finish_reason, prompt, completion)


def _entries(model: Model, ids: Sequence[int], start: int, top: int) -> tuple[Entry, ...]:
    """Of `ids[start:]`."""
    if start >= len(ids):
        return ()
    scored = model.score(ids, start, top)
    likely = zip(scored.likely_ids.tolist(), scored.likely_logprobs.tolist(), strict=True)
    candidates = [
        tuple(Candidate(index, logprob, rank) for rank, (index, logprob) in enumerate(zip(*row, strict=True), 1))
        for row in likely
    ]
    columns = zip(ids[start:], scored.logprobs.tolist(), scored.ranks.tolist(), candidates, strict=True)
    return tuple(Entry(*column) for column in columns)


def _at_temperature(
    model: Model, ids: Sequence[int], start: int, entries: Sequence[Entry], temperature: float
) -> tuple[Entry, ...]:
    """The entries of `ids[start:]`, of the law that is left of the model's at a temperature."""
    laws = model.score(ids, start, model.vocabulary).likely_logprobs / temperature
    norms = np.logaddexp.reduce(laws, axis=1).tolist()

    def moved(entry: Entry, norm: float) -> Entry:
        likely = tuple(replace(one, logprob=one.logprob / temperature - norm) for one in entry.likely)
        logprob = None if entry.logprob is None else entry.logprob / temperature - norm
        return replace(entry, logprob=logprob, likely=likely)

    return tuple(moved(entry, norm) for entry, norm in zip(entries, norms, strict=True))


def _distorted(
    ids: tuple[int, ...], entries: tuple[Entry, ...], distortion: Distortion, vocabulary: int
) -> tuple[tuple[int, ...], tuple[Entry, ...]]:
    told, rows = list(ids), list(entries)
    match distortion:
        case WrongId(at):
            told[at] = (told[at] + 1) % vocabulary
            rows[at] = replace(rows[at], token_id=told[at])
        case BadLogprob(value, at):
            rows[at] = replace(rows[at], logprob=value)
        case Shorter(count):
            del rows[-count:]
        case MissingEntry(at):
            del rows[at]
        case DuplicateEntry(at):
            rows.insert(at, rows[at])
        case SwappedEntries(at):
            rows[at - 1], rows[at] = rows[at], rows[at - 1]
    return tuple(told), tuple(rows)
