"""Role `loss`: scored rollouts to training data, and the loss of a token."""

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from pydantic import JsonValue

from distillkit.arrays import Array
from distillkit.positions import NextTokenDivergence, TokenLoss
from distillkit.records import ScoredRollout
from distillkit.roles.plugin import Plugin
from distillkit.training_data import Batch, Datum


class Loss(Plugin):
    """What is trained: what it needs of teachers and student, and the loss of one token.

    `token_loss` is the loss itself. A student that runs no code of a loss (a service) trains those whose
    `loss_function` it knows by name. Weights are the engine's (`train.normalization`, `train.weightings`).
    """

    role: ClassVar[str] = "loss"
    loss_function: ClassVar[str] = ""
    """The name under which services know it; by default the name of the plugin whose `token_loss` it has."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """A class with a `token_loss` of its own is another loss function than its parent's: services do not know it.

        Else a service would train the parent's in its place, without a word.
        """
        super().__pydantic_init_subclass__(**kwargs)
        if "loss_function" not in vars(cls) and ("token_loss" in vars(cls) or not cls.loss_function):
            cls.loss_function = cls.name

    def needs(self) -> Mapping[str, int]:
        """The capabilities that scorers must have, with the least limit of each.

        `sampled`, `topk` (so many of the teacher's most probable tokens at each position), `at_ids` (logprobs of so
        many ids that the sampler names), `full` (the whole distribution, on the student's device), or a name of your
        own, whose numbers scorers put into `Score.arrays`.
        """
        return {"sampled": 1}

    def sampler_needs(self) -> Mapping[str, int]:
        """What the sampler must give with each completion: `topk` (`Rollout.arrays["topk_ids"]`), `entropy`."""
        return {}

    def reads(self) -> frozenset[str]:
        """What `token_loss` reads of the student besides its inputs: names of `READS`."""
        return frozenset({"logprobs"})

    def max_teachers(self) -> int | None:
        """How many teachers a row may be routed to; None: any number, as one mixture of their probabilities."""
        return 1

    def references(self) -> tuple[str, ...]:
        """Teachers that are asked of every sampled token besides those of the row's route (`ScoredRollout.references`).

        No row is routed to them: an anchor, what a target is extrapolated from.
        """
        return ()

    def minimises(self) -> NextTokenDivergence | None:
        """The divergence that the loss goes down on, in expectation over what the policy samples; None: none.

        `distillkit.testing.prove_loss` proves it by enumeration: the expected gradient of the loss is that of this
        divergence at each prefix, averaged over the prefixes that the sampling policy writes, which are held constant.
        """
        return None

    def options(self) -> Mapping[str, JsonValue]:
        """What travels to the loss function with each batch; by default the plugin's own options."""
        return self.model_dump(mode="json")

    def options_without_effect(self) -> frozenset[str]:
        """The names of those of `options()` that have no effect at the values that they have here.

        They are not sent to a service whose loss function lacks them: it trains the same. Others are refused there.
        """
        return frozenset()

    def options_for(self, taken: Collection[str]) -> Mapping[str, JsonValue]:
        """Those of `options()` that go to a service whose loss function takes the options `taken`."""
        needless = self.options_without_effect() - frozenset(taken)
        return {name: value for name, value in self.options().items() if name not in needless}

    def token_loss(self) -> TokenLoss | None:
        """The function `(positions, options) -> [n]`, the loss of each position; None: only services compute it.

        Over several processes it travels by pickle: a function at the top of a module.
        """
        return None

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        """[R, ...] what `token_loss` reads of a completion, by name; `Positions.inputs` has it as tensors.

        Where the completion's mask is False, numbers do not matter. `sampling_logprobs` and `weights` are the
        engine's, and are put beside.
        """
        return {}

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        """The data of one optimizer step: a datum a completion, in the order given, with what `inputs` gives.

        Called in a worker thread, with a step's completions in data order, or with part of them (`train.num_substeps`).
        A loss whose inputs depend on the other completions has a `batch` of its own; of one without, the engine makes
        the same data from `inputs`.
        """
        datums = tuple(Datum.of(completion.rollout, self.inputs(completion)) for completion in scored)
        return Batch(self.loss_function, self.options(), datums)


def read_by(loss: Loss) -> frozenset[str]:
    """What a student must have for the loss's own code: `Loss.reads`, and `full` where it needs that of scorers."""
    return loss.reads() | ({"full"} & loss.needs().keys())
