"""A loss's own torch function, held to what its role promises on whichever student and process it is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distillkit.errors import DistillkitError, PluginError
from distillkit.roles.attribution import named, note_origin
from distillkit.roles.loss import Loss, TorchLoss


@dataclass(frozen=True, slots=True)
class CheckedTorchLoss:
    """`function` of the loss that `who` names. It travels by pickle where the function does.

    A sum in the place of the loss of each token trains as well, without a word: the student multiplies by `weights`,
    and each token gets the loss of all.
    """

    function: TorchLoss
    who: str

    def __call__(self, logprobs: Any, inputs: Mapping[str, Any], options: Mapping[str, float]) -> Any:  # noqa: ANN401 - torch tensors
        """The function's result. Raises PluginError unless it is the loss of each token [N], with gradient."""
        try:
            losses = self.function(logprobs, inputs, options)
        except DistillkitError:
            raise
        except Exception as error:
            gets = (
                f"the inputs {', '.join(sorted(inputs))} [N] and the options {', '.join(sorted(options)) or '(none)'}"
            )
            promised = f"It gets logprobs [N], {gets}, and returns the loss of each token [N]"
            note_origin(error, self.who, "in its torch loss", promised)
            raise
        shape, wanted = getattr(losses, "shape", None), tuple(logprobs.shape)
        if shape is None or tuple(shape) != wanted:
            found = type(losses).__name__ if shape is None else f"a tensor of shape {[*shape]}"
            raise PluginError(
                f"{self.who}: its torch loss returned {found} for logprobs of shape {[*wanted]}, not the loss of each "
                "token: no sum and no mean, since the student multiplies by `weights` and sums"
            )
        if getattr(logprobs, "requires_grad", False) and not getattr(losses, "requires_grad", False):
            raise PluginError(
                f"{self.who}: its torch loss does not depend on `logprobs`: it has no gradient (detached, or not "
                "computed from them), so nothing would be trained"
            )
        return losses


def torch_loss_of(loss: Loss) -> CheckedTorchLoss | None:
    """The loss's own function, checked at each call; None where it has none."""
    function = loss.torch_loss()
    return None if function is None else CheckedTorchLoss(function, named(loss))
