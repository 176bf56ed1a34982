"""What a loss owes the engine: one datum a rollout, with what students need."""

import math
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from distillkit.errors import DistillkitError, PluginError, error_text
from distillkit.loop.batch_maker import BatchMaker
from distillkit.records import Rollout, ScoredRollout
from distillkit.roles.capabilities import KNOWN_NEEDS
from distillkit.roles.loss import Loss
from distillkit.testing.builders import require
from distillkit.testing.proof_of_loss import prove_loss, unprovable
from distillkit.testing.synthetic_batches import make_scored_rollouts
from distillkit.training_data import Batch, Datum


def check_loss(loss: Loss, scored: Sequence[ScoredRollout] = ()) -> None:
    """Make a batch of `scored` (none: of made-up completions), and look at it.

    Raises PluginError unless there is one datum a rollout, in order, with finite inputs for the sampled tokens and no
    weight on masked ones.
    """
    require(loss.loss_function, loss, "has no `loss_function`, the name by which students know it")
    unknown = sorted(loss.options_without_effect() - loss.options().keys())
    require(not unknown, loss, f"names {unknown} in `options_without_effect`, and `options` does not")
    batch = BatchMaker(loss).batch(scored).batch if scored else _synthetic_batch(loss)
    scored = scored or make_scored_rollouts(loss)
    require(batch.loss_function == loss.loss_function, loss, f"makes batches for {batch.loss_function!r}")
    require(dict(batch.options) == dict(loss.options()), loss, "gives a batch other options than `options()` says")
    for datum, completion in zip(batch.datums, scored, strict=True):
        _check_datum(loss, datum, completion.rollout)
    _check_token_loss(loss, batch)
    _check_proof(loss)


def _check_token_loss(loss: Loss, batch: Batch) -> None:
    """Its own function, where it has one and torch is installed, gives the loss of each position, with gradient.

    torch is imported when a loss needs it: the engine and its kit do without.
    """
    if batch.token_loss is None or not batch.datums or find_spec("torch") is None:
        return
    from distillkit.testing.loss_proof.made_up_loss import made_up_loss

    weighed = made_up_loss(batch)
    require(math.isfinite(float(weighed.detach())), loss, "its token_loss is not finite for made-up logprobs")
    weighed.backward()


def _check_proof(loss: Loss) -> None:
    """It does what it says that it minimises, wherever that can be looked at."""
    if unprovable(loss) is not None or find_spec("torch") is None:
        return
    failures = [f"{check.name}: {check.sentence}" for check in prove_loss(loss).failures]
    require(not failures, loss, "does not do what it says (`distillkit plugins prove`): " + "; ".join(failures))


def _synthetic_batch(loss: Loss) -> Batch:
    """A batch of made-up scores. What scorers give for a capability of the loss's own, only its author knows."""
    own = sorted(loss.needs().keys() - KNOWN_NEEDS)
    scored = make_scored_rollouts(loss)
    try:
        return BatchMaker(loss).batch(scored).batch
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
    for name, array in datum.inputs.items():
        require(np.isfinite(array).all(), loss, f"input {name!r} is not finite at a token that counts")
