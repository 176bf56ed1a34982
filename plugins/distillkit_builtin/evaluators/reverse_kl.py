"""The evaluator that every on-policy distillation run wants: how far the student still is from its teachers."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from distillkit import EvalContext, EvalResult, Evaluator, ScoredRollout, reverse_kl


class ReverseKL(Evaluator):
    """Held-out reverse KL of student and teacher, in nats a token and nats a completion, over all and by route."""

    name: ClassVar[str] = "reverse_kl"

    async def evaluate(self, context: EvalContext) -> EvalResult:
        """Sample the held-out prompts and score the completions."""
        scored = await context.scored()
        routes: dict[str, list[ScoredRollout]] = {}
        for one in scored:
            routes.setdefault(one.prompts.route.label, []).append(one)
        overall = {**_measure(scored), "failed": float(len(context.rows) - len(scored))}
        return EvalResult(overall, {route: _measure(mine) for route, mine in routes.items()})


def _measure(scored: Sequence[ScoredRollout]) -> dict[str, float]:
    lengths = [len(one.rollout.token_ids) for one in scored]
    cut = [one.rollout.finish_reason == "length" for one in scored]
    return {
        **reverse_kl(scored),
        "mean_length": float(np.mean(lengths)),
        "truncated_fraction": float(np.mean(cut)),
        "completions": float(len(scored)),
    }
