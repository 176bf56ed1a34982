"""Every completion of a student that is a table, sampled and scored as a loss needs it, as the engine's records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from distillkit.arrays import Array, BoolArray, token_ids
from distillkit.loop.wanted import Wanted
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.roles.loss import Loss
from distillkit.testing.ask_as_wanted import ask_as_wanted
from distillkit.testing.builders import make_row
from distillkit.testing.loss_proof.tables import LENGTH, Policies
from distillkit.token_arrays import most_probable
from distillkit.types import Prompts, Route, SampleKey, SampleRequest, SamplingParams

TEACHERS = ("teacher", "second")
PROMPT = token_ids([0])
PARAMS = SamplingParams(LENGTH)


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """Which tokens the policy did not sample, and what stands in their place."""

    kept: BoolArray
    """[completions, tokens]."""
    sampled: float
    """The sampler's logprobs, and other fractions, of a token that is not kept."""
    scored: float
    """Those of the scorers."""

    @classmethod
    def every_third(cls, completions: int, sampled: float, scored: float) -> "Masks":
        """The first token of each third completion, and the last one of the next."""
        kept = np.ones((completions, LENGTH), np.bool_)
        kept[::3, 0] = kept[1::3, -1] = False
        return cls(kept, sampled, scored)


def every_completion(loss: Loss, policies: Policies, masks: Masks | None = None) -> list[ScoredRollout]:
    """V * V completions, in the order of their ids."""
    return list(_completions(Wanted.of([loss]), policies, masks))


def prefixes_of(ids: Sequence[int] | Array) -> list[int]:
    """The prefix of each token of a completion, as tables number them."""
    return [0, *(1 + int(each) for each in ids[:-1])]


def _completions(wanted: Wanted, policies: Policies, masks: Masks | None) -> Iterator[ScoredRollout]:
    row = make_row()
    names = TEACHERS[: len(policies.teachers)]
    route = Route(dict(zip(names, policies.shares, strict=True)))
    prompts = Prompts(row, route, PROMPT, dict.fromkeys((*names, *wanted.references), PROMPT))
    tables = dict(zip(names, policies.teachers, strict=True)) | dict.fromkeys(wanted.references, policies.reference)
    for sample, ids in enumerate(np.ndindex(*[policies.vocabulary] * LENGTH)):
        kept = None if masks is None else masks.kept[sample]
        hide = _Hide(kept, 0.0 if masks is None else masks.sampled)
        request = SampleRequest(SampleKey(row.row_id, 0, sample), PROMPT, sample, PARAMS, wanted.of_sampler)
        at = policies.student[prefixes_of(ids)]
        arrays = hide.all(_of_sampler(wanted.of_sampler, at))
        rollout = Rollout(request, 0, token_ids(ids), hide(_sampled(at, ids)), "length", "", kept, arrays=arrays)
        hide = _Hide(kept, 0.0 if masks is None else masks.scored)
        asked = [ScoreRequest(rollout, name, PROMPT) for name in names]
        score = partial(_score, tables, hide)
        references = {name: score(ScoreRequest(rollout, name, PROMPT)) for name in wanted.references}
        yield ScoredRollout(rollout, prompts, ask_as_wanted(wanted, route, asked, score), references)


@dataclass(frozen=True, slots=True, eq=False)
class _Hide:
    """Puts a number in the place of what is not kept."""

    kept: BoolArray | None
    behind: float

    def __call__(self, values: Array) -> Array:
        if self.kept is None or values.dtype.kind != "f":
            return values
        return np.where(self.kept.reshape(-1, *[1] * (values.ndim - 1)), values, self.behind)

    def all(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: self(values) for name, values in arrays.items()}


def _score(tables: Mapping[str, Array], hide: _Hide, request: ScoreRequest) -> Score:
    ids = request.token_ids
    at = tables[request.teacher][prefixes_of(ids)]
    arrays = _topk(at, request.topk) if request.topk else {}
    if request.at_ids is not None:
        found = np.take_along_axis(at, np.maximum(request.at_ids, 0), axis=1)
        arrays["at_logprobs"] = np.where(request.at_ids >= 0, found, -np.inf)
    return Score(request, hide(_sampled(at, ids)), ids, arrays=hide.all(arrays))


def _sampled(at: Array, ids: Sequence[int] | Array) -> Array:
    return at[np.arange(len(ids)), list(ids)]


def _of_sampler(wanted: Mapping[str, int], at: Array) -> dict[str, Array]:
    arrays = _topk(at, wanted["topk"]) if "topk" in wanted else {}
    return {**arrays, "entropy": -(np.exp(at) * at).sum(1)} if "entropy" in wanted else arrays


def _topk(at: Array, k: int) -> dict[str, Array]:
    ids, logprobs = most_probable(at, k)
    return {"topk_ids": ids, "topk_logprobs": logprobs}
