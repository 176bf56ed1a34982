"""The evaluator that every on-policy distillation run wants: how far the student still is from its teachers."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from distillkit import EvalContext, EvalResult, Evaluator, ScoredRollout, reverse_kl


class ReverseKL(Evaluator):
    """Held-out reverse KL of student and teacher, in nats a token and nats a completion, over all and by route."""

    name: ClassVar[str] = "reverse_kl"

    async def evaluate(self, context: EvalContext) -> EvalResult:
        """The metrics of all scored completions, and of each route's; `failed` counts rows without a score."""
        completions = await context.scored()
        routes: dict[str, list[ScoredRollout]] = {}
        for scored in completions:
            routes.setdefault(scored.prompts.route.label, []).append(scored)
        overall = {**_measure(completions), "failed": float(len(context.rows) - len(completions))}
        return EvalResult(overall, {route: _measure(mine) for route, mine in routes.items()})


def _measure(completions: Sequence[ScoredRollout]) -> dict[str, float]:
    lengths = [len(scored.rollout.token_ids) for scored in completions]
    cut = [scored.rollout.finish_reason == "length" for scored in completions]
    return {
        **reverse_kl(completions),
        "mean_length": float(np.mean(lengths)),
        "truncated_fraction": float(np.mean(cut)),
        "completions": float(len(completions)),
    }
