"""Role `loss`: scored rollouts to training data."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from distillkit.records import Batch, ScoredRollout
from distillkit.roles.plugin import Plugin

TorchLoss = Callable[[Any, Mapping[str, Any], Mapping[str, float]], Any]
"""`(logprobs [N] with gradient, inputs of [N] tensors, options) -> loss a token [N]`, over all response tokens of a
micro-batch laid end to end. For research losses; a student that runs torch in this process can use it."""


class Loss(Plugin):
    """Turns scored rollouts into training data for a named loss function."""

    role: ClassVar[str] = "loss"
    loss_function: ClassVar[str] = ""
    """The name under which a student looks up the loss function."""
    needs: ClassVar[Mapping[str, int]] = {"sampled": 1}
    """The capabilities that scorers must have, with the least limit of each: `sampled`, `topk`, `at_ids`, `full`, or a
    name of your own, whose numbers scorers put into `Score.arrays`."""
    max_teachers: ClassVar[int | None] = 1
    """How many teachers a row may be routed to; None: any number."""

    @abstractmethod
    def options(self) -> Mapping[str, float]:
        """The options that travel to the student with each batch."""

    def options_without_effect(self) -> frozenset[str]:
        """The names of those of `options()` that have no effect at the values that they have here.

        They are not sent to a student whose loss function lacks them: it trains the same. Others are refused there.
        """
        return frozenset()

    def options_for(self, taken: Collection[str]) -> Mapping[str, float]:
        """Those of `options()` that go to a student whose loss function takes the options `taken`."""
        needless = self.options_without_effect() - frozenset(taken)
        return {name: value for name, value in self.options().items() if name not in needless}

    def torch_loss(self) -> TorchLoss | None:
        """The loss function's own code, for students that do not know it by name; None: it has none.

        `function(logprobs, inputs, options)` gets logprobs [N] with gradient, `inputs` of [N] tensors (what `batch` put
        into each datum, such as `advantages`) and `options()`, over all response tokens of a micro-batch end to end. It
        returns the loss of each token [N]; the student multiplies by `weights` and sums. `loss_function` is then a name
        of its own. Over several processes it travels by pickle: a function at the top of a module.
        """
        return None

    @abstractmethod
    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        """The data of one optimizer step: a datum a completion, in the order given.

        Called in a worker thread, with a step's completions in data order, or with part of them (`train.num_substeps`).
        Each datum has `weights` [R], which are 0 at tokens that do not count, and what the loss function reads.
        """
