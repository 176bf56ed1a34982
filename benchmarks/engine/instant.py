"""Plugins that answer at once: they sample, score and train nothing, and return arrays."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from distillkit import Loss, Positions, RunConfig, Sampler, Scorer, Student, TokenLoss
from distillkit.arrays import Array, logprob_array, token_ids
from distillkit.context import RunContext
from distillkit.records import Failure, Rollout, Score, ScoredRollout, ScoreRequest, Weights
from distillkit.testing import ByteTokenizer
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import shared_tokenizer

TOKENS = 256
"""Of a completion."""
IDS = token_ids(np.random.default_rng(0).integers(16, ByteTokenizer.size - 2, TOKENS))
"""None of which ends a completion: those come first in the one tokenizer, and last among bytes."""
SAMPLED = logprob_array(-np.random.default_rng(1).random(TOKENS))
SCORED = logprob_array(-np.random.default_rng(2).random(TOKENS))


def tokenizer_of(run: RunContext, folder: str) -> Tokenizer:
    """The one at `folder`, or, without any, bytes."""
    return shared_tokenizer(run, folder) if folder else run.share("byte tokenizer", ByteTokenizer)


class InstantStudent(Student, Sampler):
    """Every completion has the same tokens and logprobs; training does nothing."""

    role: ClassVar[str] = "student"
    name: ClassVar[str] = "instant"

    tokenizer_folder: str = Field("", description="Where its tokenizer is.")

    _version: int = PrivateAttr(0)

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """As `tokenizer_folder` says."""
        return tokenizer_of(run, self.tokenizer_folder)

    def context_length(self, run: RunContext) -> int | None:
        """Long enough for all that is measured."""
        return 100_000

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        """`importance_sampling`."""
        return {"importance_sampling": frozenset({"ratio_log_cap"})}

    def loss_capabilities(self) -> frozenset[str]:
        """What sampled tokens have, so that a loss of its own goes through the run as for a local student."""
        return frozenset({"logprobs"})

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Each at once, in arrays of its own, as a backend makes them."""
        version = self._version  # pydantic looks for it in several places, which takes as long as half of a Rollout
        for request in requests:
            yield Rollout(request, version, IDS.copy(), SAMPLED.copy(), "length", "")

    async def sync(self, weights: Weights) -> None:
        """Note the version."""
        self._version = weights.version

    async def train(self, batch: Batch) -> StepResult:
        """Nothing."""
        return StepResult({"train/loss": 0.0})

    async def publish(self, version: int) -> Weights:
        """There are none."""
        return Weights(version, "live")

    async def save(self, path: Path) -> None:
        """Nothing to save."""

    async def load(self, path: Path) -> None:
        """Nothing to load."""

    async def export(self, run_dir: Path) -> Path:
        """An empty folder."""
        (run_dir / "adapter").mkdir(exist_ok=True)
        return run_dir / "adapter"


class InstantLoss(Loss):
    """A loss of token positions with an input of its own, as a plugin brings one; nothing computes it here."""

    name: ClassVar[str] = "instant"

    def token_loss(self) -> TokenLoss:
        """`advantage_loss`, below."""
        return advantage_loss

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        """`advantages` [R]: teacher minus sampler."""
        (score,) = completion.scores.values()
        return {"advantages": score.logprobs - completion.rollout.logprobs}


def advantage_loss(positions: Positions, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a torch tensor
    """[n] in nats."""
    return -positions.logprobs * positions.inputs["advantages"]


class InstantScorer(Scorer):
    """The same logprobs for every completion."""

    name: ClassVar[str] = "instant"

    tokenizer_folder: str = Field("", description="Where its tokenizer is.")

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """As `tokenizer_folder` says."""
        return tokenizer_of(run, self.tokenizer_folder)

    def context_length(self, run: RunContext) -> int | None:
        """Long enough for all that is measured."""
        return 100_000

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Each at once, in arrays of its own."""
        for request in requests:
            yield Score(request, SCORED.copy(), IDS.copy())


def instant_config(
    folder: Path,
    data: Path | Mapping[str, object],
    teachers: Sequence[str],
    tokenizer: Path | None,
    *,
    privileged: bool = True,
    **over: object,
) -> RunConfig:
    """A run of these plugins on `data`, a path or the section; not `privileged`, teachers read what students read."""
    where = "" if tokenizer is None else str(tokenizer)
    key = "teacher_messages" if privileged else "absent_messages"
    scorers = {name: InstantScorer(tokenizer_folder=where) for name in teachers}
    values: dict[str, object] = {
        "name": "instant",
        "log_path": f"{folder}/{{name}}",
        "data": {"path": str(data)} if isinstance(data, Path) else data,
        "student": InstantStudent(tokenizer_folder=where),
        "teachers": [
            {
                "model": name,
                "route_value": name,
                "teacher_messages_key": key,
                "missing_teacher_messages": "student",
                "scorer": scorer,
            }
            for name, scorer in scorers.items()
        ],
        "sampling": {"max_completion_tokens": TOKENS},
        "sinks": [],
        **over,
    }
    return RunConfig.model_validate(values)
