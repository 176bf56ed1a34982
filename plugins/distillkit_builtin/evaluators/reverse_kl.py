"""The evaluator that every on-policy distillation run wants: how far the student still is from its teachers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from distillkit import EvalContext, EvalResult, Evaluator, Measure, RowValue, ScoredRollout, reverse_kl


class ReverseKL(Evaluator):
    """Held-out reverse KL of student and teacher, in nats a token and nats a completion, over all and by route."""

    name: ClassVar[str] = "reverse_kl"
    measures: ClassVar[Mapping[str, Measure]] = {
        "reverse_kl": Measure("reverse KL, nats a token", "lower"),
        "reverse_kl_per_completion": Measure("reverse KL, nats a completion"),
        "failed": Measure("rows without a score", unit="count"),
    }

    async def evaluate(self, context: EvalContext) -> EvalResult:
        """The metrics of all scored completions, and of each route's; `failed` counts rows without a score."""
        completions = await context.scored()
        routes: dict[str, list[ScoredRollout]] = {}
        for scored in completions:
            routes.setdefault(scored.prompts.route.label, []).append(scored)
        overall = {**_measure(completions), "failed": float(len(context.rows) - len(completions))}
        return EvalResult(
            overall,
            {route: _measure(mine) for route, mine in routes.items()},
            {
                "reverse_kl": {scored.key.row_id: _gap(scored) for scored in completions},
                "reverse_kl_per_completion": {scored.key.row_id: _gap(scored, each=True) for scored in completions},
            },
        )


def _measure(completions: Sequence[ScoredRollout]) -> dict[str, float]:
    return {**reverse_kl(completions), "completions": float(len(completions))}


def _gap(scored: ScoredRollout, *, each: bool = False) -> RowValue:
    """A completion's gaps to its teacher, or the mixture of its teachers, summed, by its tokens; `each`: by one."""
    gap = scored.rollout.at_active(scored.rollout.logprobs - scored.teacher_logprobs)
    return RowValue(float(gap.sum(dtype=np.float64)), 1.0 if each else float(len(gap)))
