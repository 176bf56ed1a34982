"""One completion, in a form that every dialect can send, or distorted by a fault."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distillkit.records import FinishReason
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
from distillkit_loopback.openai.models import Model, Sampled
from distillkit_loopback.sampling_fields import SamplingFields


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the top-k tokens at a position. The best has rank 1."""

    token_id: int
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class Entry:
    """The token at a position, and the top-k there."""

    token_id: int
    logprob: float | None
    """None for the first token, which nothing stands before."""
    rank: int = 0
    topk: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A request in the terms of the model: prompt, sampling parameters, and the logprobs requested."""

    prompt: tuple[int, ...]
    params: SamplingFields
    """Sampling parameters; with `max_tokens` 0 nothing is sampled."""
    seed: int
    prompt_top: int | None
    """How many candidates come with each token of the prompt; None: its logprobs are not requested."""
    top: int | None
    """How many candidates come with each token of the completion; None: its logprobs are not requested."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The computed completion, which each dialect formats in its own way."""

    prompt_ids: tuple[int, ...]
    sampled_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt: tuple[Entry, ...] | None
    """One a token; None if not requested."""
    sampled: tuple[Entry, ...] | None
    names_ids: bool = True

    def distorted(self, distortion: Distortion, vocabulary: int) -> "Completion":
        """The completion with that fault; unchanged where it has no logprobs in which the fault could show."""
        if isinstance(distortion, NoIds):
            return replace(self, names_ids=False)
        if self.prompt is not None:
            ids, entries = _distorted(self.prompt_ids, self.prompt, distortion, vocabulary)
            return replace(self, prompt_ids=ids, prompt=entries)
        if self.sampled is not None:
            ids, entries = _distorted(self.sampled_ids, self.sampled, distortion, vocabulary)
            return replace(self, sampled_ids=ids, sampled=entries)
        return self

    def noisy(self, nats: float, seed: int) -> "Completion":
        """The completion with noise of that standard deviation on each logprob; none gets above 0."""
        rng = np.random.default_rng(seed)

        def moved(logprob: float) -> float:
            return min(0.0, logprob + float(rng.normal(0.0, nats)))

        def entry(one: Entry) -> Entry:
            if one.logprob is None:
                return one
            logprob = moved(one.logprob)
            topk = tuple(
                replace(each, logprob=logprob if each.token_id == one.token_id else moved(each.logprob))
                for each in one.topk
            )
            return replace(one, logprob=logprob, topk=topk)

        prompt = None if self.prompt is None else tuple(map(entry, self.prompt))
        return replace(self, prompt=prompt, sampled=None if self.sampled is None else tuple(map(entry, self.sampled)))


def compute(model: Model, task: Task, *, processed: bool = False) -> Completion:
    """Sample, and score all of it once more for the logprobs that are requested.

    `processed`: a completion's logprobs are those at the temperature that sampled it.
    """
    sampled = Sampled((), "length")
    if task.params.max_tokens:
        sampled = model.sample(task.prompt, task.seed, task.params)
    whole, length = (*task.prompt, *sampled.ids), len(task.prompt)
    prompt = completion = None
    if task.prompt_top is not None:
        prompt = (Entry(whole[0], None), *_entries(model, whole[:length], 1, task.prompt_top))
    if task.top is not None:
        completion = _entries(model, whole, length, task.top)
    if completion and processed and task.params.temperature > 0:
        completion = _at_temperature(model, whole, length, completion, task.params.temperature)
    return Completion(task.prompt, sampled.ids, sampled.finish_reason, prompt, completion)


def _entries(model: Model, ids: Sequence[int], start: int, top: int) -> tuple[Entry, ...]:
    """The tokens `ids[start:]` with logprob, rank, and `top` candidates each."""
    if start >= len(ids):
        return ()
    scored = model.score(ids, start, top)
    topk = zip(scored.topk_ids.tolist(), scored.topk_logprobs.tolist(), strict=True)
    candidates = [
        tuple(Candidate(index, logprob, rank) for rank, (index, logprob) in enumerate(zip(*row, strict=True), 1))
        for row in topk
    ]
    columns = zip(ids[start:], scored.logprobs.tolist(), scored.ranks.tolist(), candidates, strict=True)
    return tuple(Entry(*column) for column in columns)


def _at_temperature(
    model: Model, ids: Sequence[int], start: int, entries: Sequence[Entry], temperature: float
) -> tuple[Entry, ...]:
    """The entries of `ids[start:]`, with logprobs of the distribution at a temperature."""
    scaled = model.score(ids, start, model.vocabulary).topk_logprobs / temperature
    norms = np.logaddexp.reduce(scaled, axis=1).tolist()

    def moved(entry: Entry, norm: float) -> Entry:
        topk = tuple(replace(each, logprob=each.logprob / temperature - norm) for each in entry.topk)
        logprob = None if entry.logprob is None else entry.logprob / temperature - norm
        return replace(entry, logprob=logprob, topk=topk)

    return tuple(moved(entry, norm) for entry, norm in zip(entries, norms, strict=True))


def _distorted(
    ids: tuple[int, ...], entries: tuple[Entry, ...], distortion: Distortion, vocabulary: int
) -> tuple[tuple[int, ...], tuple[Entry, ...]]:
    named, rows = list(ids), list(entries)
    match distortion:
        case WrongId(at):
            named[at] = (named[at] + 1) % vocabulary
            rows[at] = replace(rows[at], token_id=named[at])
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
    return tuple(named), tuple(rows)
