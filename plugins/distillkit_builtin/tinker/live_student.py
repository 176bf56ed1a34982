"""The live side of student `tinker`: its training client and its sampling client, between open and close."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer, shared_tokenizer
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.aimd_window import AimdWindow
from distillkit_builtin.remote.as_completed import as_completed
from distillkit_builtin.remote.blocking_calls import start_in_thread
from distillkit_builtin.remote.service_client import loop_time
from distillkit_builtin.tinker.batch_codec import (
    LOSS,
    adam_params,
    as_datums,
    current_logprobs,
    server_metrics,
    step_metrics,
    trained_tokens,
)
from distillkit_builtin.tinker.checkpoints import Checkpoints
from distillkit_builtin.tinker.completions import Endpoint, sample_completion, score_completion
from distillkit_builtin.tinker.export import export
from distillkit_builtin.tinker.gradient_scale import GradientScale
from distillkit_builtin.tinker.options import TinkerStudentOptions
from distillkit_builtin.tinker.raw_probe import reports_raw_logprobs
from distillkit_builtin.tinker.sdk import load_sdk, retry_config, sdk_call
from distillkit_builtin.tinker.service import TinkerService
from distillkit_builtin.tinker.trainer_connection import TrainerConnection

RESCORED = (
    "student 'tinker': the server reports logprobs of the distribution that it samples from, not the model's own; "
    "completions that are sampled otherwise than at temperature 1 from all tokens are scored once more each"
)
RESUME = "go on from the last checkpoint by --resume"


@dataclass(slots=True)
class LiveTinkerStudent:
    """Trains through `connection`, samples through `endpoint`."""

    run: RunContext
    options: TinkerStudentOptions
    connection: TrainerConnection
    checkpoints: Checkpoints
    tokenizer: HFTokenizer
    scale: GradientScale | None
    """What the server divides gradients by; None: the run does not train, and it was not measured."""
    sdk: Any
    """The SDK's module."""
    admission: Admission
    endpoint: Endpoint | None = None
    """Of the last publish; its snapshot never changes."""
    published: int | None = None
    """The version that `endpoint` samples as."""
    version: int = 0
    """Of the last sync."""

    @classmethod
    async def open(cls, run: RunContext, options: TinkerStudentOptions, service: TinkerService) -> "LiveTinkerStudent":
        """Begin a session; for a run that trains, measure what the server makes of a loss.

        The model itself is made when it is needed.

        A checkpoint is only loaded into a model that has heard of nothing else, so none is made before that.
        """
        sdk = await start_in_thread(load_sdk, "tinker: import")
        connection = TrainerConnection(service, options, run.seed, run.notify_as("student 'tinker'"))
        scale = await connection.measure() if run.trains else None
        tokenizer = shared_tokenizer(run, options.tokenizer_source)
        most = options.concurrency.max
        admission = Admission(AimdWindow(most, most, loop_time))
        return cls(run, options, connection, Checkpoints(options, connection), tokenizer, scale, sdk, admission)

    async def close(self) -> None:
        """Unload the model, where the server can."""
        await self.connection.close()

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step. Both requests are sent before either is waited for.

        Raises:
            BadStepError: if a number that would be sent is not finite; nothing is sent then.
            RunFailedError: if the step fails, or what comes back is not finite: the server has applied it by then.
            RuntimeError: if it was opened for a run that does not train.
        """
        if self.scale is None:
            raise RuntimeError("student 'tinker' is trained, and was opened for a run that does not train")
        tokens = trained_tokens(batch)
        datums = as_datums(batch, tokens, self.scale, self.sdk)
        client, params = await self.connection.ensure(), adam_params(self.options, self.sdk)
        seconds, started = self.options.timeouts.step, time.perf_counter()

        def send() -> tuple[Any, Any]:
            return client.forward_backward(datums, LOSS), client.optim_step(params)

        try:
            pending, step = await sdk_call("sending a training step", seconds, send)
            summed = await sdk_call("a training step", seconds, lambda: pending)
            summed_at = time.perf_counter()
            taken = await sdk_call("a training step", seconds, lambda: step)
        except RunFailedError as error:
            raise RunFailedError(f"{error}; whether it is applied is not known: {RESUME}") from error
        times = {"time/forward_backward": summed_at - started, "time/optim_step": time.perf_counter() - summed_at}
        measured = step_metrics(batch, tokens, current_logprobs(batch, summed.loss_fn_outputs))
        rate = {"train/learning_rate": self.options.learning_rate}
        return StepResult({**server_metrics(summed, taken), **measured, **rate, **times})

    async def publish(self, version: int) -> Weights:
        """Take a snapshot of the current weights to sample from. The first one says which logprobs the server reports.

        Raises:
            InputError: if the server's logprobs are of no use.
            RunFailedError: if there is no snapshot in time.
        """
        client, before = await self.connection.ensure(), self.endpoint
        seconds = self.options.timeouts.request
        retries = retry_config(seconds)
        sampler = await sdk_call(
            f"publishing weights {version}",
            self.options.timeouts.weight_sync,
            lambda: client.save_weights_and_get_sampling_client(retry_config=retries),
        )
        endpoint = Endpoint(self.sdk, sampler, self.admission, seconds, before is None or before.raw)
        if before is None:
            endpoint.raw = await reports_raw_logprobs(endpoint, f"student 'tinker' at {self.options.root}")
            if not endpoint.raw:
                self.run.notify(RESCORED)
        self.endpoint, self.published = endpoint, version
        return Weights(version, "live")

    async def sync(self, weights: Weights) -> None:
        """Rollouts carry this version from now on. Raises RuntimeError for one that was not published last."""
        if weights.version != self.published:
            raise RuntimeError(f"version {weights.version} is not the one that was published, {self.published}")
        self.version = weights.version

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of the policy of the last sync."""
        endpoint, version = self._ready(), self.version

        async def sampled(request: SampleRequest) -> Rollout | Failure:
            return await sample_completion(endpoint, request, version, self.tokenizer)

        async for outcome in as_completed(requests, sampled):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores by the snapshot that samples."""
        endpoint = self._ready()

        async def scored(request: ScoreRequest) -> Score | Failure:
            return await score_completion(endpoint, request)

        async for outcome in as_completed(requests, scored):
            yield outcome

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/student/window` (requests at once, at most) and `inflight` (the most since the last call)."""
        window, peak = self.admission.window.size, self.admission.take_peak()
        return {"concurrency/student/window": float(window), "concurrency/student/inflight": float(peak)}

    async def save(self, path: Path) -> None:
        """Let the server save weights and optimizer; write down what it calls them."""
        await self.checkpoints.save(path, self.version)

    async def load(self, path: Path) -> None:
        """Go on with what `save` wrote, in a new model."""
        self.version = await self.checkpoints.load(path)

    async def export(self, run_dir: Path) -> Path:
        """Save the final weights, and fetch them as an adapter that PEFT loads whole, where the server gives them."""
        return await export(run_dir, self.options, self.connection, self.tokenizer, self.run.notify)

    def _ready(self) -> Endpoint:
        if self.endpoint is None:
            raise RuntimeError("student 'tinker' is asked for completions before its first publish")
        return self.endpoint
