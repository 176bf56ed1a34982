"""Each completion's datum, whether the engine makes it of a loss's `inputs` or completes that of a loss's `batch`."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from distillkit import AlignmentError, Array, Batch, Datum, Loss, PluginError, ScoredRollout
from distillkit.loop.batch_maker import BatchMaker
from distillkit.testing import make_rollout, make_scored
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

MASKED = make_scored(make_rollout([5, 6, 7], mask=[True, False, True]), [-1.0, -2.0, -3.0])
WHOLE = make_scored(make_rollout([5, 6], sample=1), [-1.0, -2.0])
SCORED = [MASKED, WHOLE]


class Distributions(ImportanceSampling):
    """Has its teachers asked again."""

    name: ClassVar[str] = "distributions"

    def needs(self) -> Mapping[str, int]:
        return {"full": 1}


class OwnBatch(ImportanceSampling):
    """Makes its data itself, as every other loss's are made."""

    name: ClassVar[str] = "own_batch"

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        return super().batch(scored)


class OwnDistributions(Distributions, OwnBatch):
    """Both."""


class Given(Loss):
    """Gives what it is told to."""

    name: ClassVar[str] = "given"
    make: ClassVar[Callable[[int], Any]]

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return type(self).make(len(completion.rollout.token_ids))  # type: ignore[no-any-return]


def giving(make: Callable[[int], Any]) -> Loss:
    """A loss whose inputs for a completion of so many tokens are what `make` gives."""
    made: Loss = type("Giving", (Given,), {"make": staticmethod(make), "__module__": __name__})()
    return made


def content(datum: Datum) -> tuple[object, ...]:
    inputs = {name: (array.dtype, array.tolist()) for name, array in datum.inputs.items()}
    teachers = {name: (each.prompt_ids.tolist(), each.weight) for name, each in datum.teachers.items()}
    return datum.key, datum.prompt_ids.tolist(), datum.response_ids.tolist(), inputs, teachers


@pytest.mark.parametrize(("loss", "own"), [(ImportanceSampling, OwnBatch), (Distributions, OwnDistributions)])
def test_with_a_batch_of_its_own_a_loss_gives_the_same_data(loss: type[Loss], own: type[Loss]) -> None:
    ours, theirs = (BatchMaker(each()).batch(SCORED).batch for each in (loss, own))
    assert [content(datum) for datum in ours.datums] == [content(datum) for datum in theirs.datums]
    assert [bool(datum.teachers) for datum in ours.datums] == [loss is Distributions] * 2
    assert (ours.options, ours.reads) == (theirs.options, theirs.reads)
    assert theirs.loss_function == own.loss_function


@pytest.mark.parametrize("loss", [ImportanceSampling(), OwnBatch()])
def test_nobody_can_change_what_a_datum_holds(loss: Loss) -> None:
    for datum in BatchMaker(loss).batch(SCORED).batch.datums:
        for array in datum.inputs.values():
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1


@pytest.mark.parametrize("completion", SCORED)
@pytest.mark.parametrize("more", [1, -1, -100])
def test_inputs_of_another_length_are_refused_behind_a_mask_too(completion: ScoredRollout, more: int) -> None:
    """One number, which numpy would repeat for each token, is another length too."""
    loss = giving(lambda count: {"gap": np.ones(max(1, count + more), np.float32)})
    with pytest.raises(AlignmentError, match=r"inputs\['gap'\] has the shape \(\d,\) for \d tokens") as error:
        BatchMaker(loss).batch([completion])
    assert re.search(r"by loss 'given' .* in inputs\(\), \S+test_batch_maker\.py:\d+\.", error.value.__notes__[0])


@pytest.mark.parametrize("make", [lambda count: None, lambda count: ["gap"]])
def test_inputs_that_are_no_mapping_name_the_loss(make: Callable[[int], Any]) -> None:
    with pytest.raises(TypeError) as error:
        BatchMaker(giving(make)).batch(SCORED)
    assert "raised by loss 'given'" in error.value.__notes__[0]


def test_an_input_of_the_engines_is_refused() -> None:
    loss = giving(lambda count: dict.fromkeys(["weights", "sampling_logprobs"], np.ones(count, np.float32)))
    with pytest.raises(PluginError, match="gives a datum sampling_logprobs and weights, which the engine does"):
        BatchMaker(loss).batch(SCORED)
