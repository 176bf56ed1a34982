r"""Cross-entropy with the teacher's top-K as soft targets: the Fireworks cookbook's `topk_forward_kl` (SDFT).

At each sampled position the K most probable ids of each teacher are taken alone, to sum to 1; teachers are added by
their weights, ids that several of them name once; the K largest sums stay, and are made to sum to 1 again:

    q(v)  = sum_i w_i p_i(v) / p_i(S_i)        S_i: top-K of teacher i, w_i: its share of the mixture
    loss  = - sum_{v in T} q(v) / q(T) log s(v)        T: the K largest of q

It goes down on KL(q renormalized on T || student), which is not the forward KL: the student is taught to give nothing
to what is outside of T, also where the teachers do. `divergence` with `forward` and its tail does not do that, and
needs no service that knows it.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, JsonValue

from distillkit import Array, Loss, Positions, Score, ScoredRollout, TokenLoss
from distillkit_builtin.losses.teacher_support import NO_ID, first_occurrences


class TopkCrossEntropy(Loss):
    """Train on the teachers' renormalized top-K as soft targets, as the Fireworks recipe's top-K forward KL does."""

    name: ClassVar[str] = "topk_cross_entropy"
    loss_function: ClassVar[str] = "cross_entropy"

    k: int = Field(5, ge=1, description="How many ids of each teacher, and of their blend. Fireworks gives up to 5.")

    def needs(self) -> Mapping[str, int]:
        """`topk`."""
        return {"topk": self.k}

    def way_out(self, need: str, amount: int, given: int) -> str:
        """Fewer ids."""
        return "lower k" if given else ""

    def reads(self) -> frozenset[str]:
        """`at_ids`."""
        return frozenset({"at_ids"})

    def max_teachers(self) -> int | None:
        """Any number, blended."""
        return None

    def options(self) -> Mapping[str, JsonValue]:
        """None: targets have all."""
        return {}

    def token_loss(self) -> TokenLoss:
        """`topk_cross_entropy`, below."""
        return topk_cross_entropy

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        """`target_ids` [R, K], the largest first, NO_ID where there are fewer, and `target_weights` [R, K]."""
        shares = completion.mixture.items()
        tables = [(*_renormalized(completion.scores[name], self.k), share) for name, share in shares if share > 0]
        ids = np.concatenate([ids for ids, _, _ in tables], axis=1)
        weights = np.concatenate([share * probabilities for _, probabilities, share in tables], axis=1)
        if len(tables) > 1:
            ids, weights = _summed(ids, weights)
        largest = np.argsort(-weights, axis=1, kind="stable")[:, : self.k]
        ids, weights = (np.take_along_axis(table, largest, axis=1) for table in (ids, weights))
        weights = weights / weights.sum(axis=1, keepdims=True)
        return {"target_ids": np.where(weights > 0, ids, NO_ID), "target_weights": weights.astype(np.float32)}


def topk_cross_entropy(positions: Positions, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401 - a torch tensor
    """[n] `- sum_k weight_k log s(id_k)`, in nats, gradient through the student."""
    ids, weights = positions.inputs["target_ids"], positions.inputs["target_weights"]
    return -(weights * positions.at(ids).masked_fill(ids < 0, 0)).sum(-1)


def _renormalized(score: Score, k: int) -> tuple[Array, Array]:
    """Ids and probabilities [R, k] of a teacher's top-K, which sum to 1 at each position."""
    ids, logprobs = score.arrays["topk_ids"][:, :k], score.arrays["topk_logprobs"][:, :k].astype(np.float64)
    probabilities = np.exp(np.where(ids < 0, -np.inf, logprobs))
    return ids, probabilities / probabilities.sum(axis=1, keepdims=True)


def _summed(ids: Array, weights: Array) -> tuple[Array, Array]:
    """Ids [R, M], each once at a position, where it stood first, with the sum of its weights; 0 elsewhere."""
    first, of_each = first_occurrences(ids)
    sums = np.bincount(of_each.reshape(-1), weights.reshape(-1), minlength=ids.size).reshape(ids.shape)
    return np.where(first, ids, NO_ID), np.where(first, sums, 0.0)
