"""A student and a teacher small enough to check by hand: one distribution over bytes, whatever the prompt."""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, PrivateAttr
from safetensors.numpy import load_file, save_file

from distillkit.arrays import Array, FloatArray, logprob_array, token_ids
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.events import Event
from distillkit.records import Failure, FinishReason, Rollout, Score, ScoreRequest, Weights
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student
from distillkit.testing.byte_tokenizer import ByteTokenizer
from distillkit.token_arrays import logprobs_at, most_probable
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, Datum, StepResult
from distillkit.types import SampleRequest


def log_softmax(logits: FloatArray) -> FloatArray:
    """[n] natural-log probabilities of logits [n]."""
    shifted = logits - logits.max()
    result: FloatArray = (shifted - np.log(np.exp(shifted).sum())).astype(np.float32)
    return result


def arrays_of(logprobs: FloatArray, count: int, wanted: Mapping[str, int]) -> dict[str, Array]:
    """What is `wanted` (`topk`, `entropy`) of `count` tokens, each of the distribution `logprobs` [V]."""
    arrays: dict[str, Array] = {}
    if wanted.get("topk"):
        ids, highest = most_probable(logprobs[None], wanted["topk"])
        arrays |= {"topk_ids": np.repeat(ids, count, axis=0), "topk_logprobs": np.repeat(highest, count, axis=0)}
    if wanted.get("entropy"):
        arrays["entropy"] = np.full(count, -(np.exp(logprobs) * logprobs).sum(), np.float32)
    return arrays


class FakeStudent(Student, Sampler):
    """Samples every token from one softmax over bytes, and trains it by plain gradient descent in numpy."""

    role: ClassVar[str] = "student"
    name: ClassVar[str] = "fake"
    writes: ClassVar[frozenset[str]] = frozenset({"adapter"})

    learning_rate: float = Field(1.0, gt=0, description="Of plain gradient descent.")
    context: int | None = Field(4096, description="The context length it claims.")

    _logits: FloatArray = PrivateAttr(default_factory=lambda: np.zeros(ByteTokenizer.size, np.float32))
    _sampling: FloatArray = PrivateAttr(default_factory=lambda: np.zeros(ByteTokenizer.size, np.float32))
    _version: int = PrivateAttr(0)
    _tokenizer: ByteTokenizer = PrivateAttr(default_factory=ByteTokenizer)

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The run's byte tokenizer."""
        return run.share("byte tokenizer", ByteTokenizer)

    def context_length(self, run: RunContext) -> int | None:
        """The option `context`, in tokens."""
        return self.context

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        """`importance_sampling`, with `ratio_log_cap`."""
        return {"importance_sampling": frozenset({"ratio_log_cap"})}

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        """`topk` of as many as there are ids, and `entropy`."""
        return {"topk": ByteTokenizer.size, "entropy": None}

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """A completion a request, in their order, sampled with the request's own seed."""
        logprobs = log_softmax(self._sampling)
        probabilities = np.exp(logprobs.astype(np.float64))
        probabilities /= probabilities.sum()
        for request in requests:
            generator = np.random.default_rng(request.seed)
            sampled = generator.choice(len(probabilities), request.params.max_tokens, p=probabilities)
            ends = np.flatnonzero(np.isin(sampled, [ByteTokenizer.turn_end, *request.params.stop_ids]))
            ids = token_ids(sampled[: ends[0] + 1] if ends.size else sampled)
            text = self._tokenizer.decode(ids.tolist())
            reason: FinishReason = "stop" if ends.size else "length"
            arrays = arrays_of(logprobs, len(ids), request.wanted)
            yield Rollout(request, self._version, ids, logprobs[ids], reason, text, arrays=arrays)

    async def sync(self, weights: Weights) -> None:
        """Sample from a copy of the weights as they are now, as `weights.version`."""
        self._sampling, self._version = self._logits.copy(), weights.version

    async def train(self, batch: Batch) -> StepResult:
        """One step of gradient descent on the importance-sampling loss."""
        cap = batch.options.get("ratio_log_cap")
        parts = [self._gradient(datum, cap if isinstance(cap, float) else math.inf) for datum in batch.datums]
        gradient: FloatArray = np.sum([part[1] for part in parts], axis=0)
        self._logits = self._logits - np.float32(self.learning_rate) * gradient
        return StepResult({"train/loss": float(sum(part[0] for part in parts))})

    def _gradient(self, datum: Datum, cap: float) -> tuple[float, FloatArray]:
        """The loss of one completion, and its gradient [vocabulary] by the logits."""
        logprobs = log_softmax(self._logits)
        log_ratio = logprobs[datum.response_ids] - datum.inputs["sampling_logprobs"]
        losses = -np.exp(np.minimum(log_ratio, cap)) * datum.inputs["advantages"] * datum.inputs["weights"]
        by_logprob = np.where(log_ratio < cap, losses, 0)
        gradient = -np.exp(logprobs) * by_logprob.sum()
        np.add.at(gradient, datum.response_ids, by_logprob)
        return float(losses.sum()), gradient.astype(np.float32)

    async def publish(self, version: int) -> Weights:
        """`live` weights: only this student samples from them."""
        return Weights(version, "live")

    async def save(self, path: Path) -> None:
        """Write the logits into `fake.safetensors`."""
        save_file({"logits": self._logits}, path / "fake.safetensors")

    async def load(self, path: Path) -> None:
        """Read the logits that `save` wrote."""
        self._logits = load_file(path / "fake.safetensors")["logits"]

    async def export(self, run_dir: Path) -> Path:
        """Write the logits into `adapter/`, and return that folder."""
        folder = run_dir / "adapter"
        folder.mkdir(exist_ok=True)
        await self.save(folder)
        return folder

    def require_exportable(self, *, merged: bool) -> None:
        """Logits of any step, and no model that they could be merged into."""
        if merged:
            raise InputError("student 'fake' has logits and no model that they could be merged into")


class FakeScorer(Scorer):
    """Gives some characters more than the rest, whatever the prompt; keeps every request."""

    name: ClassVar[str] = "fake"

    likes: str = Field("", description="These characters get `strength` more; without any, all bytes are alike.")
    strength: float = Field(3.0, description="Added to the logits of what is liked.")
    context: int | None = Field(4096, description="The context length it claims.")

    _seen: list[ScoreRequest] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[ScoreRequest]:
        """Every request so far, in the order of arrival."""
        return self._seen

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The run's byte tokenizer."""
        return run.share("byte tokenizer", ByteTokenizer)

    def context_length(self, run: RunContext) -> int | None:
        """The option `context`, in tokens."""
        return self.context

    def capabilities(self) -> Mapping[str, int | None]:
        """`topk` of as many as there are ids, and `at_ids` of any number."""
        return {"sampled": None, "topk": ByteTokenizer.size, "at_ids": None}

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """A score a request, in their order, each at once."""
        logits = np.zeros(ByteTokenizer.size, np.float32)
        logits[list(self.likes.encode())] = self.strength
        logprobs = log_softmax(logits)
        for request in requests:
            self._seen.append(request)
            ids = request.token_ids
            arrays = arrays_of(logprobs, len(ids), {"topk": request.topk})
            if request.at_ids is not None:
                table = np.broadcast_to(logprobs, (len(ids), len(logprobs)))
                arrays["at_logprobs"] = logprobs_at(table, request.at_ids)
            yield Score(request, logprob_array(logprobs[ids]), echoed_ids=ids, arrays=arrays)


class ListSink(Sink):
    """Keeps every event."""

    name: ClassVar[str] = "list"

    _events: list[Event] = PrivateAttr(default_factory=list)

    @property
    def events(self) -> list[Event]:
        """Everything that was emitted, in order."""
        return self._events

    def emit(self, event: Event) -> None:
        """Append the event to `events`."""
        self._events.append(event)
