"""Synthetic scored completions that hold what a loss needs of scorers, and batches that a student can train on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import JsonValue, ValidationError

from distillkit.arrays import Array, FloatArray, frozen_array, logprob_array
from distillkit.config.train_config import Normalization
from distillkit.errors import PluginError
from distillkit.loop.batch_maker import BatchMaker
from distillkit.positions import Positions
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.registry import Registry
from distillkit.roles.loss import Loss
from distillkit.roles.student import Student
from distillkit.testing.builders import make_rollout, make_row
from distillkit.training_data import Batch, Datum
from distillkit.types import Prompts, Route, Row

TEACHERS = ("teacher", "other")
IDS = 258
"""Of the byte tokenizer: what top-k ids are taken from, where k is less."""
KNOWN_NEEDS = frozenset({"sampled", "topk", "at_ids", "full"})
ADVANTAGE = 0.01
"""Nats by which made-up teachers give more to what a student sampled than it did."""


def make_scored_rollouts(loss: Loss | None = None) -> list[ScoredRollout]:
    """Three completions of different lengths, one with a masked token, scored as `loss` needs (None: as sampled).

    Where the loss takes several teachers, two completions have two, and one has one.
    """
    rows = [make_row(f"question {line}", line=line) for line in (1, 2, 3)]
    rollouts = [
        make_rollout([65, 66, 67], [-1.0, -2.0, -0.5], row=rows[0]),
        make_rollout([70], [-0.1], row=rows[1]),
        make_rollout([80, 81], [-3.0, -1.0], row=rows[2], mask=[True, False]),
    ]
    if loss is not None:
        rollouts = [replace(rollout, arrays=sampled_arrays(rollout, loss.sampler_needs())) for rollout in rollouts]
    teacher_logprobs = [[-0.5, -2.5, -0.5], [-4.0], [-1.0, -1.0]]
    return [
        score_rollout(rollout, row, logprob_array(logprobs), loss, teachers=1 if row is rows[1] else 2)
        for rollout, row, logprobs in zip(rollouts, rows, teacher_logprobs, strict=True)
    ]


def score_rollout(
    rollout: Rollout, row: Row, logprobs: FloatArray, loss: Loss | None = None, teachers: int = 2
) -> ScoredRollout:
    """`rollout` with `logprobs` [R] by the first teacher, and half a nat less by each further one.

    There are `teachers` of them, if `loss` takes several, else one.
    """
    several = loss is not None and loss.max_teachers() != 1
    names = TEACHERS[:teachers] if several else TEACHERS[:1]
    prompt = rollout.request.prompt_ids
    scores: dict[str, Score] = {}
    needs = {} if loss is None else loss.needs()
    at_ids = _ids_of_all(rollout, logprobs, needs, len(names))
    for index, name in enumerate(names):
        mine = logprob_array(logprobs - 0.5 * index)
        request = ScoreRequest(rollout, name, prompt, topk=needs.get("topk", 0), at_ids=at_ids)
        scores[name] = Score(request, mine, rollout.token_ids, arrays=make_arrays(request, needs, mine))
    route = Route({name: 1 / len(names) for name in names})
    return ScoredRollout(rollout, Prompts(row, route, prompt, dict.fromkeys(names, prompt)), scores)


def make_arrays(request: ScoreRequest, needs: Mapping[str, int], logprobs: FloatArray) -> dict[str, Array]:
    """What a scorer puts into `Score.arrays` beside the sampled tokens' `logprobs` [R].

    For a capability that the engine does not know: numbers under its name, [R], or [R, least] where it has a limit.
    """
    arrays: dict[str, Array] = {}
    if request.topk:
        arrays["topk_ids"], arrays["topk_logprobs"] = _topk(request.topk, request.rollout, logprobs)
    if request.at_ids is not None:
        spread = -2.0 - 0.5 * np.arange(request.at_ids.shape[1], dtype=np.float32)
        arrays["at_logprobs"] = np.where(request.at_ids >= 0, spread, -np.inf).astype(np.float32)
    for need in needs.keys() - KNOWN_NEEDS:
        least, count = needs[need], len(request.token_ids)
        arrays[need] = np.full(count if least <= 1 else (count, least), -1.0, np.float32)
    return arrays


def sampled_arrays(rollout: Rollout, needs: Mapping[str, int]) -> dict[str, Array]:
    """What a sampler puts into `Rollout.arrays` for these of `Loss.sampler_needs`."""
    arrays: dict[str, Array] = {}
    if "topk" in needs:
        arrays["topk_ids"], arrays["topk_logprobs"] = _topk(needs["topk"], rollout, rollout.logprobs)
    if "entropy" in needs:
        arrays["entropy"] = np.ones(len(rollout.token_ids), np.float32)
    return arrays


def _ids_of_all(rollout: Rollout, logprobs: FloatArray, needs: Mapping[str, int], teachers: int) -> Array | None:
    """The ids that every teacher is asked for: the sampler's, and of several teachers what is among any one's top-k."""
    tables = [rollout.arrays["topk_ids"]] if "at_ids" in needs and "topk_ids" in rollout.arrays else []
    if teachers > 1 and "topk" in needs:
        tables += [_topk(needs["topk"], rollout, logprob_array(logprobs - 0.5 * n))[0] for n in range(teachers)]
    return np.concatenate(tables, axis=1) if tables else None


def _topk(k: int, rollout: Rollout, logprobs: FloatArray) -> tuple[Array, Array]:
    """Ids and logprobs [R, k], in descending order, of a distribution that gives the sampled ids `logprobs`.

    What they leave is halved from one other id to the next.
    """
    sampled = logprobs[:, None].astype(np.float64)
    rest = np.log(-np.expm1(np.minimum(sampled, -1e-6))) - math.log(2) * np.arange(1, k + 1)
    all_logprobs = np.concatenate([sampled, rest], axis=1)
    ids = rollout.token_ids[:, None]
    all_ids = np.concatenate([ids, (ids + np.arange(1, k + 1)) % max(IDS, k + 1)], axis=1)
    order = np.argsort(-all_logprobs, axis=1, kind="stable")[:, :k]
    ids, values = (np.take_along_axis(array, order, axis=1) for array in (all_ids, all_logprobs))
    return frozen_array(ids, np.int64), frozen_array(values, np.float32)


def complete_batch(loss: Loss, scored: Sequence[ScoredRollout], normalization: Normalization = "token_mean") -> Batch:
    """What a student gets of `loss` for these completions: its data with the sampling logprobs and weights."""
    return BatchMaker(loss, normalization=normalization).batch(scored).batch


def make_batch(student: Student, rollouts: Sequence[Rollout]) -> Batch:
    """What `student` can train on: of a registered loss whose function it knows, or, if it runs such, in torch.

    Raises PluginError, saying what to pass, where it knows no loss function that anything can be made for.
    """
    known = student.loss_functions()
    for loss in _registered_losses():
        taken = known.get(loss.loss_function)
        if taken is not None and loss.options_for(taken).keys() <= taken:
            scored = [
                score_rollout(rollout, make_row(), np.minimum(rollout.logprobs + ADVANTAGE, 0), loss)
                for rollout in rollouts
            ]
            return BatchMaker(loss, taken).batch(scored).batch
    if student.loss_capabilities():
        datums = tuple(_datum(rollout) for rollout in rollouts)
        return Batch("check_plugin", {}, datums, scaled_likelihood)
    names = ", ".join(map(repr, known)) or "none"
    raise PluginError(
        f"{type(student).__module__}.{type(student).__qualname__} (student): knows the loss functions {names}, and no "
        "registered loss makes inputs for one with options that it takes; pass what it trains on: "
        "check_plugin(student, batch=Batch(...))"
    )


def _registered_losses() -> list[Loss]:
    """Each loss that needs no option to be set."""
    losses: list[Loss] = []
    for info in Registry.discover().infos("loss"):
        try:
            losses.append(info.cls())  # type: ignore[arg-type]
        except ValidationError:  # an option without a default
            continue
    return losses


def _datum(rollout: Rollout) -> Datum:
    count = len(rollout.token_ids)
    inputs = {
        "sampling_logprobs": np.where(rollout.active, rollout.logprobs, np.float32(0)),
        "advantages": np.full(count, ADVANTAGE, np.float32),
        "weights": np.where(rollout.active, np.float32(1 / count), np.float32(0)),
    }
    return Datum(rollout.key, rollout.request.prompt_ids, rollout.token_ids, inputs)


def scaled_likelihood(positions: Positions, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401 - a torch tensor
    """A token loss that needs no import of torch: `-logprob * advantage` [n]."""
    return -positions.logprobs * positions.inputs["advantages"]
