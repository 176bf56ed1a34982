"""Teachers that are asked again while a row is trained, for their whole distributions.

Their hidden states behind prompt and completion are computed for a micro-batch at a time, and the head comes later, a
chunk of positions at a time: a full distribution leaves no device, and never exists for a batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillkit.context import RunContext
from distillkit.errors import PluginError
from distillkit.training_data import Datum
from distillkit_builtin.local.batches.micro_batching import padded_micro_batches
from distillkit_builtin.local.device import selected
from distillkit_builtin.local.inference.inference_model import InferenceModel
from distillkit_builtin.local.inference.scoring import response_states
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.training.counted_positions import CountedPositions
from distillkit_builtin.local.training.distributions import known_log_softmax, unknown_mass

FindTeacher = Callable[[str], InferenceModel]
"""A teacher's model in this process, by the teacher's name."""


def share_teacher(run: RunContext, name: str, inference: InferenceModel) -> None:
    """Let the student of this process find a teacher's model."""
    run.share(_key(name), lambda: inference)


def shared_teacher(run: RunContext, name: str) -> InferenceModel:
    """The model of a teacher of this process. Raises PluginError for one that is not here."""

    def missing() -> InferenceModel:
        raise PluginError(
            f"the loss needs the whole distributions of teacher {name!r}, and its scorer opened no model in this "
            "process (distillkit_builtin.local.training.asked_teachers.share_teacher): take scorer local"
        )

    return run.share(_key(name), missing)


def no_teachers(name: str) -> InferenceModel:
    """Where a trainer stands alone. Raises PluginError."""
    raise PluginError(f"teacher {name!r} cannot be asked: this trainer knows no teachers")


def _key(name: str) -> tuple[str, str]:
    return ("local teacher", name)


@dataclass(frozen=True, slots=True, eq=False)
class TeacherStates:
    """What a teacher's head reads at some positions."""

    causal_lm: CausalLM
    weight: float
    """Its share of the mixture."""
    hidden: Tensor
    """[m, hidden], on the teacher's device."""

    @torch.no_grad()
    def logits(self, part: slice) -> Tensor:
        """[n, rows] at a part of the positions, without the student's adapter."""
        hidden = self.hidden[part]
        with torch.autocast(hidden.device.type, enabled=False):
            if self.causal_lm.head_is_frozen:
                return self.causal_lm.head(hidden)
            with self.causal_lm.without_adapter():
                return self.causal_lm.head(hidden)


@dataclass(frozen=True, slots=True, eq=False)
class RoutePositions:
    """Positions whose teachers are the same, with the same weights."""

    positions: Tensor
    """[m] indices into the positions that count."""
    teachers: tuple[TeacherStates, ...]
    """Empty where the loss does not need them."""

    def logits(self, part: slice) -> list[Tensor]:
        """[n, rows] of each teacher at a part of the positions; their heads may have different numbers of rows."""
        return [teacher.logits(part) for teacher in self.teachers]

    @torch.no_grad()
    def mixture(self, logits: Sequence[Tensor], known: int, ids: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The mixture's log-softmax [n, known], and the teachers' unknown mass [n].

        `logits` are those of `self.logits`, `ids` [n] what was sampled there; both results are on its device. None
        without teachers, and where no head has more rows.
        """
        mixed = unknown = None
        for teacher, each in zip(self.teachers, logits, strict=True):
            logprobs = known_log_softmax(each, known)
            mass = teacher.weight * unknown_mass(each, logprobs, ids.to(each.device)).to(ids.device)
            unknown = mass if unknown is None else unknown + mass
            logprobs = logprobs.to(ids.device)
            if len(self.teachers) > 1:
                logprobs += math.log(teacher.weight)
            mixed = logprobs if mixed is None else torch.logaddexp(mixed, logprobs, out=mixed)
        return mixed, unknown if any(each.shape[1] > known for each in logits) else None


def whole_route(counted: CountedPositions) -> list[RoutePositions]:
    """All positions as if of one route, for a loss that asks no teacher."""
    return [RoutePositions(torch.arange(len(counted), device=counted.weights.device), ())]


def ask_teachers(datums: Sequence[Datum], counted: CountedPositions, find: FindTeacher) -> list[RoutePositions]:
    """The positions that count by route, each with its teachers' hidden states.

    Raises:
        PluginError: for a teacher that cannot be found, or a datum without any.
        RunFailedError: if not even one completion fits into a teacher's memory.
    """
    routes: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for number in np.unique(counted.owners).tolist():
        weights = tuple((name, asked.weight) for name, asked in datums[number].teachers.items() if asked.weight > 0)
        if not weights:
            raise PluginError(f"{datums[number]}: the loss needs its teachers' distributions, and it names no teacher")
        routes.setdefault(weights, []).append(number)
    return [_ask_route(datums, counted, weights, numbers, find) for weights, numbers in routes.items()]


def _ask_route(
    datums: Sequence[Datum],
    counted: CountedPositions,
    weights: Sequence[tuple[str, float]],
    numbers: Sequence[int],
    find: FindTeacher,
) -> RoutePositions:
    """Ask the teachers of a route about the datums of these numbers.

    They give hidden states of all response positions of these datums, end to end; those that count are kept.
    """
    owners = np.repeat(np.arange(len(datums)), [len(datum.response_ids) for datum in datums])
    places = np.arange(len(owners)) if counted.index is None else counted.index.cpu().numpy()
    place_given = np.cumsum(np.isin(owners, numbers)) - 1
    mine = np.isin(counted.owners, numbers)
    rows = torch.from_numpy(place_given[places[mine]])
    positions = torch.from_numpy(np.flatnonzero(mine)).to(counted.weights.device)
    sides = []
    for name, weight in weights:
        inference = find(name)
        items = [
            PromptAndResponse(datums[number].teachers[name].prompt_ids, datums[number].response_ids)
            for number in numbers
        ]
        hidden = _hidden_states(inference, items)
        sides.append(TeacherStates(inference.causal_lm, weight, hidden[rows.to(hidden.device)]))
    return RoutePositions(positions, tuple(sides))


def _hidden_states(inference: InferenceModel, items: Sequence[PromptAndResponse]) -> Tensor:
    """[R_1 + R_2 + ..., hidden] what the head reads of the items' responses, in as few batches as scoring takes."""
    batch, lengths = inference.score_batch, list(map(len, items))

    def grouped(left: Sequence[int]) -> list[list[int]]:
        one_length = not inference.causal_lm.batching.right_padding
        groups = padded_micro_batches([lengths[i] for i in left], batch.size, one_length=one_length)
        return [[left[i] for i in group] for group in groups]

    found: dict[int, Tensor] = {}
    waiting = grouped(range(len(items)))
    while waiting:
        group = waiting[0]
        try:
            with selected(inference.causal_lm.device.device), inference.causal_lm.without_adapter():
                hidden = response_states(inference.causal_lm, [items[i] for i in group], inference.backbone).hidden
        except torch.OutOfMemoryError as error:
            batch.shrink(error, max(lengths[i] for i in group))
            waiting = grouped([i for others in waiting for i in others])
            continue
        waiting = waiting[1:]
        found |= dict(zip(group, hidden.split([len(items[i].response_ids) for i in group]), strict=True))
    return torch.cat([found[i] for i in range(len(items))])
