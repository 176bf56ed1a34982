"""What the loss of a token sees: response positions laid end to end, each by itself.

The loss of a position depends on that position alone. So a student computes head and loss in chunks of positions, and
[tokens, vocabulary] never exists for a batch; sequence-level ratios cannot be written as a `TokenLoss`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import JsonValue

from distillkit.errors import PluginError

READS = {
    "logprobs": "the student's logprob of each sampled token",
    "distribution": "the student's next-token distribution (`Positions.student`)",
    "entropy": "the entropy of that distribution (`Positions.entropy`)",
    "at_ids": "the student's logprobs of ids that the loss gives (`Positions.at`)",
}
"""What a Loss can read of the student, by the names of `Loss.reads`."""
SAID_BY = {
    "logprobs": "`logprobs` in reads()",
    "student": "`distribution` in reads()",
    "teacher": "`full` in needs()",
    "entropy": "`entropy` in reads()",
    "at()": "`at_ids` in reads()",
}
"""By what a Loss says that it reads a part of `Positions`."""


class Positions(Protocol):
    """`n` response positions, of any completions of the step, as tensors of the student's device.

    `V` is the tokenizer's size, or the rows of a smaller head. Only what the loss says that it `reads` and `needs` is
    there; anything else raises PluginError, which names it. Positions of weight 0 are not among them. Logprobs are
    natural log, float32, at temperature 1.
    """

    @property
    def logprobs(self) -> Any:  # noqa: ANN401 - a torch tensor, and the engine imports no torch
        """[n] of the sampled ids under the student that is trained, with gradient."""
        ...

    @property
    def sampling_logprobs(self) -> Any:  # noqa: ANN401
        """[n] of the sampled ids under the policy that sampled them."""
        ...

    @property
    def inputs(self) -> Mapping[str, Any]:
        """[n, ...] by name: what `Loss.inputs` put into the data."""
        ...

    @property
    def student(self) -> Any:  # noqa: ANN401
        """[n, V] log-softmax of the student, with gradient. Reads `distribution`."""
        ...

    @property
    def teacher(self) -> Any:  # noqa: ANN401
        """[n, V] log-softmax of the row's teacher, or of the mixture of its teachers. Needs `full`."""
        ...

    @property
    def entropy(self) -> Any:  # noqa: ANN401
        """[n] of the student's distribution, in nats, with gradient. Reads `entropy`."""
        ...

    def at(self, ids: Any) -> Any:  # noqa: ANN401
        """[n, K] the student's logprobs of `ids` [n, K], with gradient. Reads `at_ids`.

        An id of -1 is none, as is one that the student's head lacks: minus infinity, without gradient.
        """
        ...


def unsaid(part: str) -> PluginError:
    """The error of a student for a loss that reads a `part` of `Positions`, a key of `SAID_BY`, and does not say so."""
    return PluginError(f"the loss reads positions.{part} without saying so: it must have {SAID_BY[part]}")


TokenLoss = Callable[[Positions, Mapping[str, JsonValue]], Any]
"""`(positions, options) -> [n]`: the loss of each position, with gradient. The student multiplies by the weights and
sums."""

NextTokenDivergence = Callable[[Any, Any, Any], Any]
"""`(student [n, V], teacher [n, V], sampling [n, V]) -> [n]`: log-softmax distributions at some prefixes to a
divergence in nats, with gradient through the student; `sampling` is the policy that sampled, held constant."""
