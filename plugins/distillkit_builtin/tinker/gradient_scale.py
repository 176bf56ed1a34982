"""What a server's gradient is of the sum over tokens that distillkit asks for, measured before a run trains on it.

Tinker sums `loss_fn` over all tokens of a step. SkyRL's JAX backend divides each sequence's loss by its number of
tokens N, those of the prompt too, and a step's gradient by its number of sequences B, and says neither. Where that is
so, the advantages are multiplied by N * B, which is exact, since the loss is linear in them.

It is measured on a model of its own, so that neither the weights nor the optimizer of the run hear of it: a server that
reports `loss:sum` says by it what it sums; of another the norms of gradients are compared, which optimizer steps with
the learning rate 0 report, of one sequence, of the same twice, and of the same with tokens behind it that train
nothing. Their sampling logprob is the model's own, so that the gradient is that of a ratio of 1, far from underflow
also where the token is improbable. A constant factor would not be seen, nor matter: AdamW's step does not depend on it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillkit.arrays import LOGPROB_ROUNDING
from distillkit.errors import InputError

IDS = (1, 2, 3, 4, 5, 6, 7, 8, 9)
"""Of the longest sequence; any ids do."""
SHORT = 5
"""Ids of the short sequence, which the long one begins with."""
AT = 2
"""The position that trains, in both."""
TOLERANCE = 0.05
"""Of a ratio of norms, or a loss: bfloat16 is far more exact, and the ratios to tell apart are 1 and 2."""
LOSS_SUM = "loss:sum"
GRAD_NORM = "grad_norm"
NOTHING_SAID = (
    "the server reports neither a loss nor a gradient's norm, so whether its gradients are the sum over tokens is not "
    "known; it is taken for so, as Tinker documents it"
)


@dataclass(frozen=True, slots=True)
class GradientScale:
    """What a server divides by."""

    by_tokens: bool = False
    """Each sequence's loss, by its number of tokens."""
    by_sequences: bool = False
    """A step's gradient, by its number of sequences."""
    measured: bool = True

    def factor(self, tokens: int, sequences: int) -> int:
        """What the advantages of a sequence of so many tokens, in a step of so many sequences, are multiplied by."""
        return (tokens if self.by_tokens else 1) * (sequences if self.by_sequences else 1)

    def describe(self) -> str:
        """For a message: what is divided by, and what is done about it. Empty for a plain sum."""
        if not self.measured:
            return NOTHING_SAID
        divisors = [
            *(["each sequence's loss by its number of tokens"] if self.by_tokens else []),
            *(["each step by its number of sequences"] if self.by_sequences else []),
        ]
        if not divisors:
            return ""
        return f"the server divides {' and '.join(divisors)} (measured); advantages are multiplied by as much"


def probe_datums(sdk: Any, copies: int, ids: Sequence[int], sampling: float) -> list[Any]:  # noqa: ANN401 - the SDK's
    """`copies` of a sequence in which one position trains, with the advantage 1 and that sampling logprob."""
    arrays = {
        "target_tokens": list(ids[1:]),
        "logprobs": [sampling if at == AT else 0.0 for at in range(len(ids) - 1)],
        "advantages": [1.0 if at == AT else 0.0 for at in range(len(ids) - 1)],
    }
    datum = sdk.Datum(model_input=sdk.ModelInput.from_ints(list(ids[:-1])), loss_fn_inputs=arrays)
    return [datum] * copies


def scale_of_loss(found: float, logprob: float) -> GradientScale:
    """What the `loss:sum` of `probe_datums(sdk, 2, IDS, 0.0)` says; `logprob` is that of the position that trains.

    Raises:
        InputError: if it is not the sum over tokens, which is `-exp(logprob)`, twice.
    """
    expected = -2 * math.exp(logprob)
    if abs(found - expected) > TOLERANCE * abs(expected):
        raise InputError(
            f"the server reports a {LOSS_SUM} of {found:.4g} where importance_sampling, summed over tokens, is "
            f"{expected:.4g}; distillkit cannot train on it"
        )
    return GradientScale()


def scale_of_norms(short: float, once: float, twice: float) -> GradientScale:
    """What the norms of the gradients of the short sequence, of the long one, and of two of that say.

    Raises:
        InputError: if they fit neither sums nor means.
    """
    by_sequences = _one_of(twice / once, {2.0: False, 1.0: True})
    by_tokens = _one_of(once / short, {1.0: False, (SHORT - 1) / (len(IDS) - 1): True})
    if by_sequences is None or by_tokens is None:
        raise InputError(
            f"the server's gradients are neither sums nor means over tokens and sequences: of the same sequence twice "
            f"the norm is {twice / once:.3g} times as large, and {once / short:.3g} times with tokens behind it that "
            "train nothing; distillkit cannot train on them"
        )
    return GradientScale(by_tokens, by_sequences)


def _one_of(ratio: float, known: dict[float, bool]) -> bool | None:
    return next((said for value, said in known.items() if abs(ratio - value) <= TOLERANCE * value), None)


def logprob_in(outputs: Sequence[Mapping[str, Any]]) -> float:
    """The model's logprob of the token that trains, among the outputs of `probe_datums(sdk, n, IDS, ...)`.

    Raises:
        InputError: if there is none, or none that a token can have.
    """
    tensor = outputs[0].get("logprobs") if outputs else None
    values = [] if tensor is None else [float(value) for value in tensor.data]
    if len(values) != len(IDS) - 1 or not -math.inf < values[AT] <= LOGPROB_ROUNDING:
        raise InputError(
            f"the server computes no logprobs of a training step's tokens (it gave {values} for {len(IDS) - 1} of "
            "them); distillkit cannot train on it"
        )
    return values[AT]


def norm_in(metrics: Any) -> float | None:  # noqa: ANN401 - the SDK's, or None
    """A gradient's norm among an optimizer step's metrics, if it is there and tells something."""
    found = next((value for name, value in (metrics or {}).items() if name.endswith(GRAD_NORM)), None)
    return float(found) if found is not None and 0 < found < float("inf") else None
