"""A Batch as the Tinker protocol takes it, and the loss of what comes back.

`loss_fn: importance_sampling` sums `-exp(logprob - sampling_logprob) * advantage` over all N = P + R - 1 positions. It
takes no weights, and is linear in the advantages: a token's weight is multiplied into its advantage, and positions that
train nothing (the prompt, weight 0) have the advantage 0. The loss and the mismatch are computed here, from the
logprobs that come back: not every server reports a loss, and those that do mean different things by it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillkit.arrays import Array, FloatArray
from distillkit.errors import AlignmentError, BadStepError, PluginError, RunFailedError
from distillkit.roles.student import token_at
from distillkit.training_data import Batch, Datum
from distillkit_builtin.tinker.gradient_scale import GradientScale
from distillkit_builtin.tinker.options import TinkerStudentOptions

LOSS = "importance_sampling"
GRAD_NORM = "grad_norm"
"""How the name of the metric ends, where a server has it (SkyRL's JAX backend: `skyrl.ai/grad_norm`)."""
GO_ON = "its step is applied, so its weights may be ruined: go on from the last checkpoint by --resume"


@dataclass(frozen=True, slots=True)
class TrainedTokens:
    """What trains of a completion: [R] each, zero where a token has no weight."""

    weighted: FloatArray
    """Advantage times weight."""
    sampling: FloatArray
    counts: Array
    """[R] True where the weight is not 0."""


def trained_tokens(batch: Batch) -> list[TrainedTokens]:
    """Of each completion, in the batch's order.

    Raises:
        BadStepError: if a number that would be sent is not finite; nothing is sent then.
        PluginError: for data that the server's loss function does not read.
    """
    if batch.loss_function != LOSS or batch.options:
        raise PluginError(f"student 'tinker' trains {LOSS} without options, not {batch.loss_function} {batch.options}")
    tokens = [_trained(datum) for datum in batch.datums]
    every = np.concatenate([each.weighted + each.sampling for each in tokens]) if tokens else np.zeros(0)
    bad = np.flatnonzero(~np.isfinite(every))
    if len(bad):
        raise BadStepError(
            f"{token_at(batch.datums, int(bad[0]))}: advantage, weight or sampling logprob is not finite"
        )
    return tokens


def _trained(datum: Datum) -> TrainedTokens:
    inputs = datum.inputs
    if "advantages" not in inputs:
        raise PluginError(f"{datum}: {LOSS} reads 'advantages', which the loss does not put into its data")
    counts = inputs["weights"] != 0
    weighted = np.zeros(len(counts), np.float32)
    np.multiply(inputs["advantages"], inputs["weights"], out=weighted, where=counts, casting="same_kind")
    sampling = np.where(counts, inputs["sampling_logprobs"], 0).astype(np.float32)
    return TrainedTokens(weighted, sampling, counts)


def as_datums(batch: Batch, tokens: Sequence[TrainedTokens], scale: GradientScale, sdk: Any) -> list[Any]:  # noqa: ANN401
    """All of a batch, in its order, with advantages that make the server's gradient the sum over tokens."""
    made = []
    for datum, trained in zip(batch.datums, tokens, strict=True):
        full = np.concatenate([datum.prompt_ids, datum.response_ids]).tolist()
        before = [0.0] * (len(datum.prompt_ids) - 1)
        factor = scale.factor(len(full) - 1, len(batch.datums))
        arrays = {
            "target_tokens": full[1:],
            "logprobs": [*before, *trained.sampling.tolist()],
            "advantages": [*before, *(trained.weighted * np.float32(factor)).tolist()],
        }
        made.append(sdk.Datum(model_input=sdk.ModelInput.from_ints(full[:-1]), loss_fn_inputs=arrays))
    return made


def current_logprobs(batch: Batch, outputs: Sequence[Mapping[str, Any]]) -> list[FloatArray]:
    """[R] of each completion under the weights before the step, as the server computed them.

    Raises:
        AlignmentError: if they are not those of this batch's tokens.
        RunFailedError: if one that counts is not finite, since the step is applied by then.
    """
    if len(outputs) != len(batch.datums):
        raise AlignmentError(f"a step of {len(batch.datums)} completions gave {len(outputs)} outputs")
    found = []
    for datum, output in zip(batch.datums, outputs, strict=True):
        if "logprobs" not in output:
            raise AlignmentError(f"{datum}: the server's outputs hold no logprobs, only {sorted(output)}")
        values = np.asarray(output["logprobs"].data, np.float32).reshape(-1)
        count = len(datum.prompt_ids) + len(datum.response_ids) - 1
        if len(values) != count:
            raise AlignmentError(f"{datum}: {len(values)} logprobs came back for {count} positions")
        found.append(values[len(datum.prompt_ids) - 1 :])
    return found


def step_metrics(batch: Batch, tokens: Sequence[TrainedTokens], logprobs: Sequence[FloatArray]) -> dict[str, float]:
    """`train/loss` and how far sampling and training logprobs are apart, over the tokens that count.

    Raises:
        RunFailedError: if a logprob or the loss is not finite.
    """
    loss, apart = 0.0, []
    for datum, trained, current in zip(batch.datums, tokens, logprobs, strict=True):
        counted = current[trained.counts].astype(np.float64)
        if not np.isfinite(counted).all():
            at = int(np.flatnonzero(trained.counts & ~np.isfinite(current))[0])
            raise RunFailedError(f"{token_at([datum], at)}: the server computed the logprob {current[at]}; {GO_ON}")
        difference = counted - trained.sampling[trained.counts]
        loss -= float(np.sum(np.exp(difference) * trained.weighted[trained.counts]))
        apart.append(np.abs(difference))
    if not math.isfinite(loss):
        raise RunFailedError(f"the loss is {loss}; {GO_ON}")
    every = np.concatenate(apart) if apart else np.zeros(0)
    if not len(every):  # no token has a weight
        return {"train/loss": loss}
    mismatch = {"rollout/logprob_mismatch": float(every.mean()), "rollout/logprob_mismatch_max": float(every.max())}
    return {"train/loss": loss, **mismatch}


def server_metrics(*results: Any) -> dict[str, float]:  # noqa: ANN401 - the SDK's results
    """A gradient's norm as `train/grad_norm`; all others under `tinker/`. Raises RunFailedError for one not finite."""
    metrics: dict[str, float] = {}
    for result in results:
        for name, value in (getattr(result, "metrics", None) or {}).items():
            ours = "train/grad_norm" if name.endswith(GRAD_NORM) else f"tinker/{name.replace(':', '_')}"
            metrics[ours] = float(value)
            if not math.isfinite(value):
                raise RunFailedError(f"the server's {name} is {value}; {GO_ON}")
    return metrics


def adam_params(options: TinkerStudentOptions, sdk: Any) -> Any:  # noqa: ANN401 - the SDK's AdamParams
    """The optimizer's options, as each step sends them."""
    return sdk.AdamParams(
        learning_rate=options.learning_rate,
        beta1=options.adam_betas[0],
        beta2=options.adam_betas[1],
        eps=options.adam_epsilon,
        weight_decay=options.weight_decay,
        grad_clip_norm=options.grad_clip_norm,
    )
