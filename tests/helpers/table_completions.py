"""A completion whose every next-token distribution is a row of a table, scored as a loss needs it; and its loss."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from distillkit import Array, Loss, Prompts, Route, Score, ScoredRollout, ScoreRequest
from distillkit.testing import complete_batch, make_rollout, make_row
from distillkit.testing.loss_proof.table_positions import TablePositions
from distillkit.token_arrays import most_probable

NAMES = ("teacher", "second", "third")


def log_softmax(logits: Array) -> Array:
    """In the numbers of `logits`."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def completion_of(
    loss: Loss, student: Array, teachers: Sequence[Array], weights: Sequence[float] = (1.0, 1.0, 1.0)
) -> ScoredRollout:
    """R tokens, one a row of the logits [R, V]; the student sampled, and its most probable id each time."""
    sampling, row = log_softmax(student), make_row()
    ids = sampling.argmax(1)
    rollout = make_rollout(ids.tolist(), sampling.max(1), row=row)
    k = loss.sampler_needs().get("topk", 0)
    if k:
        rollout = replace(rollout, arrays=_topk(sampling, k))
    names = NAMES[: len(teachers)]
    tables = dict(zip(names, map(log_softmax, teachers), strict=True))
    prompt = rollout.request.prompt_ids
    asked = _at_ids(loss, rollout.arrays, list(tables.values()))
    scores = {
        name: _score(ScoreRequest(rollout, name, prompt, at_ids=asked), table, loss) for name, table in tables.items()
    }
    route = Route(dict(zip(names, weights, strict=False)))
    return ScoredRollout(rollout, Prompts(row, route, prompt, dict.fromkeys(names, prompt)), scores)


def _topk(table: Array, k: int) -> dict[str, Array]:
    ids, logprobs = most_probable(table, k)
    return {"topk_ids": ids, "topk_logprobs": logprobs}


def _at_ids(loss: Loss, sampled: Mapping[str, Array], tables: Sequence[Array]) -> Array | None:
    """As the engine asks: the sampler's ids, and of several teachers each other's."""
    if "at_ids" not in loss.needs():
        return None
    k = loss.needs().get("topk", 0) if len(tables) > 1 else 0
    found = [most_probable(table, k)[0] for table in tables if k] + [sampled["topk_ids"]]
    unique = [sorted(set(np.concatenate(ids).tolist())) for ids in zip(*found, strict=True)]
    widest = max(map(len, unique))
    return np.array([ids + [-1] * (widest - len(ids)) for ids in unique])


def _score(request: ScoreRequest, table: Array, loss: Loss) -> Score:
    k = loss.needs().get("topk", 0)
    arrays = _topk(table, k) if k else {}
    if request.at_ids is not None:
        found = np.take_along_axis(table, np.maximum(request.at_ids, 0), axis=1)
        arrays["at_logprobs"] = np.where(request.at_ids >= 0, found, -np.inf)
    sampled = table[np.arange(len(table)), request.token_ids]
    return Score(replace(request, topk=k), sampled.astype(np.float32), request.token_ids, arrays=arrays)


def mixture_of(teachers: Sequence[Array], weights: Sequence[float] = (1.0, 1.0, 1.0)) -> Array:
    """[R, V] logprobs."""
    shares = np.array(weights[: len(teachers)]) / np.sum(weights[: len(teachers)])
    parts = [float(np.log(w)) + log_softmax(t) for w, t in zip(shares, teachers, strict=True)]
    return np.asarray(np.logaddexp.reduce(parts))


def loss_at(
    loss: Loss,
    student: Array,
    teachers: Sequence[Array],
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    current: Array | None = None,
) -> tuple[Array, Array]:
    """The loss [R] of each position, and its gradient [R, V] by the student's logits.

    `current` are those of the student that is trained, where it is not the one that sampled.
    """
    batch = complete_batch(loss, [completion_of(loss, student, teachers, weights)], "sum")
    (datum,) = batch.datums
    inputs = {name: torch.tensor(values) for name, values in datum.inputs.items()}
    inputs.pop("weights")
    logits = torch.tensor(student if current is None else current).requires_grad_()
    teacher = torch.tensor(mixture_of(teachers, weights)) if "full" in loss.needs() else None
    sampling = inputs.pop("sampling_logprobs")
    positions = TablePositions(logits, torch.tensor(datum.response_ids), sampling, inputs, teacher, batch.reads)
    assert batch.token_loss is not None
    losses: Tensor = batch.token_loss(positions, batch.options)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    return losses.detach().numpy(), gradient.numpy()


def minimised(loss: Loss, student: Array, teachers: Sequence[Array]) -> tuple[Array, Array]:
    """What the loss says that it minimises [R], and its gradient [R, V] by the student's logits."""
    function = loss.minimises()
    assert function is not None
    logits = torch.tensor(student).requires_grad_()
    now = torch.log_softmax(logits, dim=-1)
    values: Tensor = function(now, torch.tensor(mixture_of(teachers)), now.detach())
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    return values.detach().numpy(), gradient.numpy()
