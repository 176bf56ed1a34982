"""A token_loss that is not the loss of each position is refused, in a run and by `check_plugin`, and named."""

import math
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field

from distillkit import Array, Loss, Positions, RunConfig, ScoredRollout, TokenLoss, run
from distillkit.errors import PluginError
from distillkit.loop.checked_token_loss import token_loss_of
from distillkit.testing import check_plugin
from distillkit_builtin.local.training.positions import SampledPositions
from distillkit_builtin.losses.importance_sampling import ImportanceSampling


def squared(positions: Positions, options: Mapping[str, Any]) -> Any:
    return (positions.logprobs - positions.sampling_logprobs - positions.inputs["advantages"]) ** 2


FUNCTIONS: Mapping[str, TokenLoss] = {
    "good": squared,
    "sum": lambda *given: squared(*given).sum(),
    "mean": lambda *given: squared(*given).mean(),
    "double": lambda *given: squared(*given).double(),
    "column": lambda *given: squared(*given)[:, None],
    "short": lambda *given: squared(*given)[1:],
    "number": lambda *given: float(squared(*given).sum()),
    "detached": lambda *given: squared(*given).detach(),
    "key": lambda positions, options: positions.logprobs * positions.inputs["advantage"],
}
WHO = r"loss 'squares' \(builtin\.local\.training\.test_token_losses\.Squares\)"


class Squares(Loss):
    """Squares of what is left of the gap."""

    name: ClassVar[str] = "squares"
    loss_function: ClassVar[str] = "squares"
    how: str = Field("good", description="Which function.")

    def token_loss(self) -> TokenLoss:
        return FUNCTIONS[self.how]

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return ImportanceSampling().inputs(completion)


@pytest.fixture
def trained(local_config: Callable[..., RunConfig]) -> Callable[[str], float]:
    def train(how: str) -> float:
        result = run(local_config(loss=Squares(how=how), train={"max_steps": 1}))
        return float(str(result.metrics[0]["train/loss"]))

    return train


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("sum", r"its token_loss returned a tensor of shape \[\] for \d+ positions, not the loss of each"),
        ("mean", r"a tensor of shape \[\] for \d+ positions"),
        ("column", r"a tensor of shape \[\d+, 1\] for \d+ positions"),
        ("short", r"a tensor of shape \[\d+\] for \d+ positions"),
        ("number", r"its token_loss returned float for \d+ positions"),
        ("detached", r"its token_loss does not depend on the student: it has no gradient"),
    ],
)
def test_another_shape_is_refused_before_it_trains(trained: Callable[[str], float], how: str, message: str) -> None:
    for refuse in (lambda: trained(how), lambda: check_plugin(Squares(how=how))):
        with pytest.raises(PluginError, match=f"^{WHO}: .*{message}"):
            refuse()


def test_the_loss_of_each_token_trains_and_keeps_its_contract(trained: Callable[[str], float]) -> None:
    assert trained("good") > 0
    check_plugin(Squares())


@pytest.mark.parametrize("rank", [0, 4])
def test_it_may_be_computed_in_float64(local_config: Callable[..., RunConfig], rank: int) -> None:
    """Also where the head is trained, and the loss of each token is kept in chunks."""
    found = [
        run(
            local_config(
                name=how,
                loss=Squares(how=how),
                student={"lora_rank": rank, "learning_rate": 1e-3},
                train={"max_steps": 1},
            )
        ).metrics[0]
        for how in ("good", "double")
    ]
    for name in ("train/loss", "train/grad_norm"):
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-5)


def test_what_it_raises_is_attributed_to_the_loss_with_what_its_role_promises(trained: Callable[[str], float]) -> None:
    with pytest.raises(KeyError) as caught:
        trained("key")
    (note,) = caught.value.__notes__
    promise = (
        "It gets positions with the inputs advantages and the options how, and returns the loss of each position [n]"
    )
    assert re.fullmatch(
        rf"raised by {WHO} in its token_loss, \S+test_token_losses\.py:\d+\. {re.escape(promise)}", note
    )


def test_it_travels_to_other_ranks_where_the_function_does() -> None:
    for loss, found in ((Squares(), 4.0), (ImportanceSampling(), -math.exp(-1.0))):
        function = pickle.loads(pickle.dumps(token_loss_of(loss)))
        positions = SampledPositions(torch.zeros(3, requires_grad=True), torch.ones(3), {"advantages": torch.ones(3)})
        assert function(positions, loss.options()).tolist() == pytest.approx([found] * 3)
