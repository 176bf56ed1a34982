"""Losses that read distributions, data for them, and the same computed plainly, whole, in float64."""

import copy
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import Array, frozen_array, token_ids
from distillkit.positions import Positions, TokenLoss
from distillkit.testing.loss_proof.table_positions import TablePositions
from distillkit.training_data import Batch, Datum, TeacherPrompt
from distillkit.types import SampleKey
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.inference.inference_model import InferenceModel
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.chunked_loss import ChunkedLoss, chunk_size

FULL = frozenset({"distribution", "full"})
EVERYTHING = frozenset({"logprobs", "distribution", "entropy", "at_ids", "full"})
STUDENT_ONLY = frozenset({"logprobs", "entropy", "at_ids"})


def reverse_kl(positions: Positions, options: Mapping[str, Any]) -> Any:
    return (positions.student.exp() * (positions.student - positions.teacher)).sum(-1)


def student_only(positions: Positions, options: Mapping[str, Any]) -> Any:
    known = positions.at(positions.inputs["ids"])
    known = torch.where(positions.inputs["ids"] < 0, torch.zeros_like(known), known)
    gap = (positions.logprobs - positions.sampling_logprobs) * positions.inputs["advantages"]
    return gap + 0.3 * positions.entropy + (known.exp() * known).sum(-1)


def everything(positions: Positions, options: Mapping[str, Any]) -> Any:
    forward = (positions.teacher.exp() * (positions.teacher - positions.student)).sum(-1)
    return student_only(positions, options) + 0.5 * reverse_kl(positions, options) + 0.2 * forward


LOSSES: Mapping[str, tuple[TokenLoss, frozenset[str]]] = {
    "reverse_kl": (reverse_kl, FULL),
    "student_only": (student_only, STUDENT_ONLY),
    "everything": (everything, EVERYTHING),
}


def distribution_batch(
    loss: str, mixtures: Sequence[Mapping[str, float]] = ({"t": 1.0},), *, longer: int = 0, count: int = 5
) -> Batch:
    """Completions, some tokens of weight 0; the mixtures take turns, and teachers read prompts that are `longer`."""
    numbers = np.random.default_rng(0)
    token_loss, reads = LOSSES[loss]
    datums = []
    for i in range(count):
        length = int(numbers.integers(2, 9))
        prompt = token_ids(numbers.integers(5, 250, 3 + i))
        inputs: dict[str, Array] = {
            name: frozen_array(values, np.float32)
            for name, values in {
                "sampling_logprobs": numbers.normal(-4, 2, length),
                "advantages": numbers.normal(0, 1, length),
                "weights": numbers.random(length) * (np.arange(length) % 3 != 1),
            }.items()
        }
        inputs["ids"] = frozen_array(np.where(numbers.random((length, 3)) < 0.2, -1, 17 + i), np.int64)
        own = token_ids([*numbers.integers(5, 250, longer), *prompt])
        teachers = {name: TeacherPrompt(own, share) for name, share in mixtures[i % len(mixtures)].items()}
        response = token_ids(numbers.integers(5, 250, length))
        datums.append(Datum(SampleKey("1-x", 0, i), prompt, response, inputs, teachers))
    return Batch(loss, {}, tuple(datums), token_loss, reads)


def chunked(
    teachers: Mapping[str, CausalLM],
    positions: int = 128,
    known: int | None = None,
    *,
    plain: bool = False,
    tokens: int = 4096,
) -> ChunkedLoss:
    """For a trainer that finds these teachers; Llamas are computed by the fast backbone, unless `plain` is said."""
    batch = AdaptiveBatchSize(tokens, "tokens", "scorer.micro_batch_tokens")

    def find(name: str) -> InferenceModel:
        causal_lm = teachers[name]
        can = type(causal_lm.model).__name__.startswith("Llama") and not plain
        fast = verified_backbone(causal_lm) if can else None
        return cast(InferenceModel, SimpleNamespace(causal_lm=causal_lm, backbone=fast, score_batch=batch))

    return ChunkedLoss(chunk_size(positions, torch.device("cpu")), known, find)


def exact_copy(causal_lm: CausalLM) -> torch.nn.Module:
    """The model with what is trained of it, in float64."""
    return copy.deepcopy(causal_lm.model).double()


def reference(model: torch.nn.Module, batch: Batch, teachers: Mapping[str, torch.nn.Module]) -> Tensor:
    """The batch's loss, from the logits of one sequence at a time; float64, with gradient."""
    total = torch.zeros((), dtype=torch.float64)
    for datum in batch.datums:
        counted = torch.tensor(datum.inputs["weights"]) != 0
        sides = {
            name: _logits(teachers[name], asked.prompt_ids, datum.response_ids).log_softmax(-1).detach()[counted]
            for name, asked in datum.teachers.items()
            if "full" in batch.reads
        }
        mixed = [sides[name] + np.log(datum.teachers[name].weight) for name in sides]
        teacher = torch.logsumexp(torch.stack(mixed), dim=0) if mixed else None
        inputs = {name: torch.tensor(values)[counted] for name, values in datum.inputs.items()}
        weights, sampling = inputs.pop("weights"), inputs.pop("sampling_logprobs")
        logits = _logits(model, datum.prompt_ids, datum.response_ids)[counted]
        ids = torch.tensor(datum.response_ids)[counted]
        positions = TablePositions(logits, ids, sampling, inputs, teacher, batch.reads)
        token_loss = cast(Callable[..., Tensor], batch.token_loss)
        total = total + (token_loss(positions, {}) * weights).sum()
    return total


def _logits(model: torch.nn.Module, prompt: Array, response: Array) -> Tensor:
    """[R, rows] that predict the response."""
    logits: Tensor = model(input_ids=torch.tensor(np.concatenate([prompt, response]))[None]).logits[0]
    return logits[len(prompt) - 1 : -1]
