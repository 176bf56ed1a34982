"""What a loss owes the engine: one datum a rollout, with what students need."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from distillkit.errors import DistillkitError, PluginError, error_text
from distillkit.loop.checked_torch_loss import torch_loss_of
from distillkit.records import Batch, Datum, Rollout, ScoredRollout
from distillkit.roles.attribution import require_returned
from distillkit.roles.loss import Loss
from distillkit.testing.builders import require
from distillkit.testing.synthetic_batches import KNOWN_NEEDS, make_scored_rollouts


def check_loss(loss: Loss, scored: Sequence[ScoredRollout] = ()) -> None:
    """Make a batch of `scored` (none: of made-up completions), and look at it.

    Raises PluginError unless there is one datum a rollout, in order, with finite inputs for the sampled tokens and no
    weight on masked ones.
    """
    require(loss.loss_function, loss, "has no `loss_function`, the name by which students know it")
    unknown = sorted(loss.options_without_effect() - loss.options().keys())
    require(not unknown, loss, f"names {unknown} in `options_without_effect`, and `options` does not")
    batch = loss.batch(scored) if scored else _synthetic_batch(loss)
    require_returned(loss, batch, Batch, "batch()")
    scored = scored or make_scored_rollouts(loss)
    require(batch.loss_function == loss.loss_function, loss, f"makes batches for {batch.loss_function!r}")
    require(dict(batch.options) == dict(loss.options()), loss, "gives a batch other options than `options()` says")
    keys = [completion.key for completion in scored]
    require([datum.key for datum in batch.datums] == keys, loss, "changes the order of the data, or leaves some out")
    for datum, completion in zip(batch.datums, scored, strict=True):
        _check_datum(loss, datum, completion.rollout)
    _check_torch_loss(loss, batch)


def _check_torch_loss(loss: Loss, batch: Batch) -> None:
    """Its own torch function, where it has one and torch is installed, gives the loss of each token, with gradient.

    torch is imported by its name, when a loss needs it: the engine and its kit do without.
    """
    function = torch_loss_of(loss)
    if function is None or not batch.datums or find_spec("torch") is None:
        return
    torch = import_module("torch")
    inputs = {
        name: torch.cat([torch.tensor(datum.inputs[name]) for datum in batch.datums]) for name in batch.datums[0].inputs
    }
    tokens = sum(len(datum.response_ids) for datum in batch.datums)
    logprobs = torch.linspace(-3.0, -0.1, tokens).requires_grad_()
    losses = function(logprobs, inputs, loss.options())
    weighed = (losses * inputs["weights"]).sum()
    require(bool(torch.isfinite(weighed)), loss, "its torch loss is not finite for made-up logprobs")
    weighed.backward()


def _synthetic_batch(loss: Loss) -> Batch:
    """A batch of made-up scores. What scorers give for a capability of the loss's own, only its author knows."""
    own = sorted(loss.needs.keys() - KNOWN_NEEDS)
    scored = make_scored_rollouts(loss)
    try:
        return loss.batch(scored)
    except DistillkitError:
        raise
    except Exception as error:
        if not own:
            raise
        shapes = {name: array.shape for name, array in next(iter(scored[0].scores.values())).arrays.items()}
        raise PluginError(
            f"{type(loss).__module__}.{type(loss).__qualname__} (loss): `batch` raised {error_text(error)} "
            f"for made-up scores with the arrays {shapes}. It needs {own}, which the engine does not know; pass scores "
            "that hold it: check_plugin(loss, scored=[make_scored(rollout, logprobs, arrays={...})])"
        ) from error


def _check_datum(loss: Loss, datum: Datum, rollout: Rollout) -> None:
    same = np.array_equal(datum.response_ids, rollout.token_ids)
    require(
        same and np.array_equal(datum.prompt_ids, rollout.request.prompt_ids), loss, "trains other ids than the sampled"
    )
    require("weights" in datum.inputs, loss, "gives a datum no `weights`; they are the normalization")
    for name, array in datum.inputs.items():
        require(np.isfinite(array).all(), loss, f"input {name!r} is not finite; masked positions need a number too")
    masked = datum.inputs["weights"][~rollout.active]
    require(not masked.any(), loss, "gives weight to a token that the policy did not sample")
