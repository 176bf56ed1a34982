"""How much of a run one process computes at once: completions in slots, tokens of a micro-batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distillkit import Plan, Rank
from distillkit_builtin.local.model.causal_lm import PromptAndResponse


@dataclass(frozen=True, slots=True)
class Work:
    """The largest step of a run, and its evaluations, as one of its processes sees them; upper bounds."""

    completions: int
    """Of a step."""
    prompts: int
    """Different ones of a step."""
    held_out: int
    """Rows of an evaluation."""
    prompt: int
    """Tokens of the longest prompt."""
    new: int
    """Tokens of a completion."""

    @classmethod
    def of(cls, plan: Plan, rank: Rank, *, longest_prompt: int) -> "Work":
        """Each rank's share of the plan's."""

        def share(count: int) -> int:
            return -(-count // rank.count)

        held_out = plan.eval_rows if plan.evaluations else 0
        sizes = share(plan.step_completions), share(plan.step_rows), share(held_out)
        return cls(*sizes, longest_prompt, plan.new_tokens)

    @property
    def length(self) -> int:
        """Tokens of a prompt and its completion."""
        return self.prompt + self.new

    def slots(self, most: int) -> int:
        """Completions that are sampled at once."""
        return min(most, max(self.completions, self.held_out))

    def batch(self, max_tokens: int, *, balanced: bool = False) -> int:
        """Sequences that are computed at once in micro-batches of so many tokens.

        `balanced`: micro-batches are about equally large and keep what shares a prompt together, as packed ones; else
        each is as full as it may be.
        """
        count = max(1, self.completions, self.held_out)
        if not balanced:
            return min(max(1, max_tokens // self.length), count)
        each = self.completions_each if self.completions_each * self.length <= max_tokens else 1
        units, most = -(-count // each), max(1, max_tokens // (each * self.length))
        return min(count, each * -(-units // -(-units // most)))

    @property
    def completions_each(self) -> int:
        """Of one prompt."""
        return max(1, self.completions // max(1, self.prompts))

    def items(self, count: int) -> Sequence[PromptAndResponse]:
        """So many prompts with completions, those of one row after each other."""
        each = self.completions_each
        response = np.zeros(self.new, dtype=np.int64)
        return [PromptAndResponse(np.full(self.prompt, i // each, dtype=np.int64), response) for i in range(count)]
