"""A loss's own function, held to what its role promises on whichever student and process it is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from distillkit.errors import DistillkitError, PluginError
from distillkit.positions import Positions, TokenLoss
from distillkit.roles.attribution import named, note_origin
from distillkit.roles.loss import Loss


@dataclass(frozen=True, slots=True)
class CheckedTokenLoss:
    """`function` of the loss that `who` names. It travels by pickle where the function does.

    A sum in the place of the loss of each token trains as well, without a word: the student multiplies by the weights,
    and each token gets the loss of all.
    """

    function: TokenLoss
    who: str

    def __call__(self, positions: Positions, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401 - a torch tensor
        """The function's result. Raises PluginError unless it is the loss of each position [n], with gradient."""
        try:
            losses = self.function(positions, options)
        except DistillkitError:
            raise
        except Exception as error:
            gets = f"the inputs {_listed(positions.inputs)} and the options {_listed(options)}"
            promised = f"It gets positions with {gets}, and returns the loss of each position [n]"
            note_origin(error, self.who, "in its token_loss", promised)
            raise
        shape, wanted = getattr(losses, "shape", None), tuple(positions.sampling_logprobs.shape)
        if shape is None or tuple(shape) != wanted:
            found = type(losses).__name__ if shape is None else f"a tensor of shape {[*shape]}"
            raise PluginError(
                f"{self.who}: its token_loss returned {found} for {wanted[0]} positions, not the loss of each: no sum "
                "and no mean, since the student multiplies by the weights and sums"
            )
        if not getattr(losses, "requires_grad", True):
            raise PluginError(
                f"{self.who}: its token_loss does not depend on the student: it has no gradient (detached, or not "
                "computed from logprobs, student, entropy or at()), so nothing would be trained"
            )
        return losses


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "(none)"


def token_loss_of(loss: Loss) -> CheckedTokenLoss | None:
    """The loss's own function, checked at each call; None where it has none."""
    function = loss.token_loss()
    return None if function is None else CheckedTokenLoss(function, named(loss))
