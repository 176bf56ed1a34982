"""A torch loss that is not the loss of each token is refused, in a run and by `check_plugin`, and named."""

import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field

from distillkit import Loss, RunConfig, run
from distillkit.errors import PluginError
from distillkit.loop.checked_torch_loss import torch_loss_of
from distillkit.records import Batch
from distillkit.roles.loss import TorchLoss
from distillkit.testing import check_plugin
from distillkit_builtin.losses.importance_sampling import ImportanceSampling


def squared(logprobs: Any, inputs: Mapping[str, Any], options: Mapping[str, float]) -> Any:
    return (logprobs - inputs["sampling_logprobs"] - inputs["advantages"]) ** 2


FUNCTIONS: Mapping[str, TorchLoss] = {
    "good": squared,
    "sum": lambda *given: squared(*given).sum(),
    "mean": lambda *given: squared(*given).mean(),
    "column": lambda *given: squared(*given)[:, None],
    "short": lambda *given: squared(*given)[1:],
    "number": lambda *given: float(squared(*given).sum()),
    "detached": lambda *given: squared(*given).detach(),
    "key": lambda logprobs, inputs, options: logprobs * inputs["advantage"],
}
WHO = r"loss 'squares' \(builtin\.local\.test_torch_losses\.Squares\)"


class Squares(Loss):
    """Squares of what is left of the gap."""

    name: ClassVar[str] = "squares"
    loss_function: ClassVar[str] = "squares"
    how: str = Field("good", description="Which function.")

    def options(self) -> dict[str, float]:
        return {}

    def torch_loss(self) -> TorchLoss:
        return FUNCTIONS[self.how]

    def batch(self, scored: Any) -> Batch:
        made = ImportanceSampling().batch(scored)
        return Batch("squares", {}, made.datums)


@pytest.fixture
def trained(local_config: Callable[..., RunConfig]) -> Callable[[str], float]:
    def train(how: str) -> float:
        result = run(local_config(loss=Squares(how=how), train={"max_steps": 1}))
        return float(str(result.metrics[0]["train/loss"]))

    return train


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("sum", r"its torch loss returned a tensor of shape \[\] for logprobs of shape \[\d+\], not the loss of each"),
        ("mean", r"a tensor of shape \[\] for logprobs"),
        ("column", r"a tensor of shape \[\d+, 1\] for logprobs"),
        ("short", r"a tensor of shape \[\d+\] for logprobs"),
        ("number", r"its torch loss returned float for logprobs"),
        ("detached", r"its torch loss does not depend on `logprobs`: it has no gradient"),
    ],
)
def test_another_shape_is_refused_before_it_trains(trained: Callable[[str], float], how: str, message: str) -> None:
    for refuse in (lambda: trained(how), lambda: check_plugin(Squares(how=how))):
        with pytest.raises(PluginError, match=f"^{WHO}: .*{message}"):
            refuse()


def test_the_loss_of_each_token_trains_and_keeps_its_contract(trained: Callable[[str], float]) -> None:
    assert trained("good") > 0
    check_plugin(Squares())


def test_what_it_raises_is_attributed_to_the_loss_with_what_its_role_promises(trained: Callable[[str], float]) -> None:
    with pytest.raises(KeyError) as caught:
        trained("key")
    (note,) = caught.value.__notes__
    promise = (
        "It gets logprobs [N], the inputs advantages, sampling_logprobs, weights [N] and the options (none), and "
        "returns the loss of each token [N]"
    )
    assert re.fullmatch(
        rf"raised by {WHO} in its torch loss, \S+test_torch_losses\.py:\d+\. {re.escape(promise)}", note
    )


def test_it_travels_to_other_ranks_where_the_function_does() -> None:
    loss = pickle.loads(pickle.dumps(torch_loss_of(Squares())))
    logprobs = torch.zeros(3, requires_grad=True)
    inputs = {"sampling_logprobs": torch.ones(3), "advantages": torch.ones(3)}
    assert loss(logprobs, inputs, {}).tolist() == [4.0] * 3
    assert torch_loss_of(ImportanceSampling()) is None
