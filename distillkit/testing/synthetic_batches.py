"""Synthetic scored completions that hold what a loss needs of scorers, and batches that a student can train on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import JsonValue, ValidationError

from distillkit.arrays import Array, FloatArray, IntArray, frozen_array, logprob_array
from distillkit.config.train_config import Normalization
from distillkit.errors import PluginError
from distillkit.loop.batch_maker import BatchMaker
from distillkit.loop.wanted import Wanted
from distillkit.positions import Positions
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.registry import Registry
from distillkit.roles.capabilities import KNOWN_NEEDS
from distillkit.roles.loss import Loss
from distillkit.roles.student import Student
from distillkit.roles.weighting import Weighting
from distillkit.testing.ask_as_wanted import ask_as_wanted
from distillkit.testing.builders import make_rollout, make_row
from distillkit.testing.byte_tokenizer import ByteTokenizer
from distillkit.token_arrays import NO_ID
from distillkit.training_data import Batch, Datum
from distillkit.types import Prompts, Route, Row

TEACHERS = ("teacher", "other")
IDS = ByteTokenizer.size
"""What top-k ids are taken from, where k is less."""
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
    teacher_logprobs = [[-0.5, -2.5, -0.5], [-4.0], [-1.0, -1.0]]
    return [
        score_rollout(rollout, row, logprob_array(logprobs), loss, teachers=1 if row is rows[1] else 2)
        for rollout, row, logprobs in zip(rollouts, rows, teacher_logprobs, strict=True)
    ]


def score_rollout(
    rollout: Rollout, row: Row, logprobs: FloatArray, reader: Loss | Weighting | None = None, teachers: int = 2
) -> ScoredRollout:
    """`rollout` with `logprobs` [R] by the first teacher, and half a nat less by each further one.

    There are `teachers` of them, if the `reader` takes several, else one. What it needs of the sampler, and of
    references, is made up too.
    """
    several = isinstance(reader, Weighting) or (reader is not None and reader.max_teachers() != 1)
    names = TEACHERS[:teachers] if several else TEACHERS[:1]
    prompt = rollout.request.prompt_ids
    needs = {} if reader is None else reader.needs()
    wanted = Wanted() if reader is None else Wanted.of([reader])
    rollout = _as_wanted(rollout, wanted.of_sampler)
    asked = (*names, *wanted.references)
    by_teacher = {name: logprob_array(logprobs - 0.5 * index) for index, name in enumerate(asked)}

    def answer(request: ScoreRequest) -> Score:
        mine = by_teacher[request.teacher]
        return Score(request, mine, rollout.token_ids, arrays=make_arrays(request, needs, mine))

    route = Route({name: 1 / len(names) for name in names})
    scores = ask_as_wanted(wanted, route, [ScoreRequest(rollout, name, prompt) for name in names], answer)
    references = {name: answer(ScoreRequest(rollout, name, prompt)) for name in wanted.references}
    return ScoredRollout(rollout, Prompts(row, route, prompt, dict.fromkeys(asked, prompt)), scores, references)


def _as_wanted(rollout: Rollout, wanted: Mapping[str, int]) -> Rollout:
    """The rollout with made-up arrays of what a sampler was to give besides."""
    if not wanted:
        return rollout
    arrays = dict(rollout.arrays)
    for name, amount in wanted.items():
        if name == "topk":
            arrays["topk_ids"], arrays["topk_logprobs"] = _topk(amount, rollout.token_ids, rollout.logprobs)
        elif name == "entropy":
            arrays[name] = np.linspace(0.5, 2, len(rollout.token_ids), dtype=np.float32)
        else:
            arrays[name] = _made_up(len(rollout.token_ids), amount, 1.0)
    return replace(rollout, request=replace(rollout.request, wanted=wanted), arrays=arrays)


def make_arrays(request: ScoreRequest, needs: Mapping[str, int], logprobs: FloatArray) -> dict[str, Array]:
    """What a scorer puts into `Score.arrays` beside the sampled tokens' `logprobs` [R].

    For a capability that the engine does not know: numbers under its name, [R], or [R, least] where it has a limit.
    """
    arrays: dict[str, Array] = {}
    ids = request.rollout.token_ids
    if request.topk:
        arrays["topk_ids"], arrays["topk_logprobs"] = _topk(request.topk, ids, logprobs)
    if request.at_ids is not None:
        apart = request.at_ids - ids[:, None]
        found = _logprobs_at(np.where(apart == 0, 0, (apart - 1) % IDS + 1), logprobs)
        arrays["at_logprobs"] = np.where(request.at_ids != NO_ID, found, -np.inf).astype(np.float32)
    for need in needs.keys() - KNOWN_NEEDS:
        arrays[need] = _made_up(len(ids), needs[need], -1.0)
    return arrays


def _made_up(count: int, least: int, value: float) -> Array:
    return np.full(count if least <= 1 else (count, least), value, np.float32)


def _topk(k: int, token_ids: IntArray, logprobs: FloatArray) -> tuple[Array, Array]:
    """Ids and logprobs [R, k], in descending order, of `_logprobs_at`'s distribution."""
    behind = np.broadcast_to(np.arange(k + 1), (len(token_ids), k + 1))
    ids = token_ids[:, None]
    all_ids = np.where(behind == 0, ids, (ids + behind) % max(IDS, k + 1))
    all_logprobs = _logprobs_at(behind, logprobs)
    order = np.argsort(-all_logprobs, axis=1, kind="stable")[:, :k]
    ids, values = (np.take_along_axis(array, order, axis=1) for array in (all_ids, all_logprobs))
    return frozen_array(ids, np.int64), frozen_array(values, np.float32)


def _logprobs_at(behind: IntArray, logprobs: FloatArray) -> Array:
    """[R, k] of the ids so far behind the sampled ones, in a distribution that gives those `logprobs` [R].

    What they leave is halved from one id to the next.
    """
    sampled = logprobs[:, None].astype(np.float64)
    rest = np.log(-np.expm1(np.minimum(sampled, -1e-6))) - math.log(2) * behind
    return np.where(behind == 0, sampled, rest)


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
