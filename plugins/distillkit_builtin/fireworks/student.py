"""Student `fireworks`: trained and sampled by the managed Fireworks Training API."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PrivateAttr

from distillkit import Sampler, Student
from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.records import Batch, Failure, Rollout, Score, ScoreRequest, StepResult, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.fireworks.owned_resources import STUDENT_FILE, Cleanup
from distillkit_builtin.fireworks.requirements import access_problems, missing_extra, require, resolve_base_url
from distillkit_builtin.fireworks.service import Service, shared_service
from distillkit_builtin.fireworks.student_check import option_problems, student_report
from distillkit_builtin.hf_tokenizer import shared_tokenizer

if TYPE_CHECKING:
    from distillkit_builtin.fireworks.live_student import FireworksPupil


VOLATILE = frozenset(
    {
        *("trainer_job_id", "keep_trainer", "deployment_id", "deployment_shape", "deployment_cleanup", "replica_count"),
        *("base_url", "initial_concurrency", "max_concurrency", "region", "use_reservation", "custom_image_tag"),
        *("request_timeout", "step_timeout", "trainer_timeout", "trainer_pending_timeout", "deployment_timeout"),
        *("weight_sync_timeout", "promotion_timeout", "inactivity_timeout", "trainer_replica_count"),
        *("save_final_checkpoint", "output_model_id", "hot_load_transition_type", "reattach_settle_timeout"),
    }
)
"""Where and how long, not what: a resumed run may have them otherwise."""


class FireworksStudent(Student, Sampler):
    """A LoRA, or all weights, trained by the managed Fireworks Training API and sampled from its own deployment."""

    role: ClassVar[str] = "student"
    name: ClassVar[str] = "fireworks"
    volatile: ClassVar[frozenset[str]] = VOLATILE
    writes: ClassVar[frozenset[str]] = frozenset({"model", STUDENT_FILE, f".{STUDENT_FILE}.new"})

    model: str = Field(min_length=1, description="The base model's resource name, accounts/NAME/models/NAME.")
    tokenizer_model: str = Field(
        min_length=1, description="Its tokenizer: a local directory, or `org/name` on the Hugging Face hub."
    )
    training_shape_id: str = Field(
        min_length=1, description="The trainer's shape, accounts/NAME/trainingShapes/NAME[/versions/NAME]."
    )
    lora_rank: int = Field(0, ge=0, description="Rank of the LoRA; 0: train all weights.")
    lora_alpha: int = Field(32, ge=1, description="The LoRA is scaled by lora_alpha / lora_rank.")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's.")
    adam_betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's.")
    grad_clip_norm: float = Field(0.0, ge=0, description="Gradients are clipped to this norm; 0: not clipped.")
    grad_accumulation_normalization: Literal["num_loss_tokens", "num_sequences", "none"] | None = Field(
        None,
        description="What the service divides gradients by, besides the loss's own `normalization`; null: not said. "
        "With anything but null or none, set loss.normalization to sum.",
    )
    max_seq_len: int | None = Field(
        None, ge=2, description="The longest prompt plus completion in tokens; null: what the training shape allows."
    )
    trainer_job_id: str | None = Field(
        None, description="An existing trainer job to use, which is left alone in the end; or the id of a new one."
    )
    keep_trainer: bool = Field(False, description="Leave a trainer that this run made running: it costs money.")
    deployment_id: str | None = Field(
        None, description="An existing deployment to sample from, which is left alone in the end; or a new one's id."
    )
    deployment_shape: str | None = Field(
        None, description="The sampling deployment's shape; null: the one that goes with the training shape."
    )
    deployment_cleanup: Cleanup = Field(
        "scale_to_zero", description="What becomes of a deployment that this run made: scale_to_zero, delete or keep."
    )
    replica_count: int = Field(1, ge=1, description="Replicas of the sampling deployment.")
    disable_speculative_decoding: bool = Field(
        False, description="A new sampling deployment draws each token from the student itself."
    )
    hot_load_transition_type: Literal["ASYNC", "SYNC"] | None = Field(
        None,
        description="What becomes of requests that run while new weights are loaded. SYNC: they end on the old ones; "
        "ASYNC: they go on with the new ones; null: the service's choice, ASYNC.",
    )
    base_url: str | None = Field(None, description="The service; null: FIREWORKS_BASE_URL, else api.fireworks.ai.")
    initial_concurrency: int = Field(8, ge=1, description="Sampling requests at once at the start; adapts itself.")
    max_concurrency: int = Field(256, ge=1, description="Sampling requests at once, at most.")
    request_timeout: float = Field(600.0, gt=0, description="Seconds for one attempt to draw a completion.")
    step_timeout: float = Field(1800.0, gt=0, description="Seconds for one training request, save or load.")
    trainer_timeout: float = Field(3600.0, gt=0, description="Seconds for the trainer to start, once it is not queued.")
    trainer_pending_timeout: float = Field(
        172800.0, gt=0, description="Seconds that the trainer may wait in the service's queue for machines."
    )
    inactivity_timeout: float | None = Field(
        None,
        gt=0,
        le=10800,
        description="The service stops a new trainer that hears of nobody, as after a kill, for so many seconds; null: "
        "the service's own choice, an hour.",
    )
    trainer_replica_count: int | None = Field(
        None, ge=1, description="Data-parallel replicas of a new trainer; null: the service's choice."
    )
    region: str | None = Field(
        None,
        min_length=1,
        description="Where a new trainer and deployment run, such as US_VIRGINIA_1; null: anywhere.",
    )
    use_reservation: bool = Field(
        True, description="A new trainer uses capacity that the account has reserved, where there is some."
    )
    custom_image_tag: str | None = Field(
        None, min_length=1, description="A new trainer's image, where Fireworks named one to you."
    )
    deployment_timeout: float = Field(5400.0, gt=0, description="Seconds for the sampling deployment to be ready.")
    reattach_settle_timeout: float = Field(
        600.0, gt=0, description="Seconds for a running deployment to take its weights from another trainer."
    )
    weight_sync_before_training: bool = Field(
        False, description="Also publish the untouched weights of a new run; a loaded student is always published."
    )
    weight_sync_timeout: int = Field(600, ge=1, description="Seconds for new weights to be loaded for sampling.")
    init_from_checkpoint: str | None = Field(
        None, description="Start from a trainer's checkpoint, JOB:NAME, with its optimizer's state."
    )
    warm_start_from_adapter: str | None = Field(
        None, description="Start from a LoRA, accounts/NAME/models/NAME or gs://..., with a new optimizer."
    )
    save_final_checkpoint: bool = Field(True, description="Save the final weights at the service.")
    output_model_id: str | None = Field(None, description="Make a model of this id of the final weights.")
    promotion_timeout: float = Field(7200.0, gt=0, description="Seconds for that.")

    _service: Service | None = PrivateAttr(None)
    _run: RunContext | None = PrivateAttr(None)
    _pupil: "FireworksPupil | None" = PrivateAttr(None)
    _context_length: int | None = PrivateAttr(None)
    _exported: bool = PrivateAttr(False)

    def check(self, run: RunContext) -> CheckReport:
        """Check options and key, ask the service for the shape and for what exists; say what would be made."""
        missing = missing_extra("student 'fireworks'")
        base_url = resolve_base_url(self.base_url)
        require("student", [*option_problems(self), *access_problems(base_url)])
        if missing:
            return CheckReport((f"student: {self.model}",), missing=missing)
        self._service = shared_service(run, base_url)
        self._service.student = self
        report, self._context_length = student_report(self, self._service)
        return report

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`."""
        return shared_tokenizer(run, self.tokenizer_model)

    def context_length(self, run: RunContext) -> int | None:
        """`max_seq_len`, else what the training shape supports."""
        return self._context_length

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        """`importance_sampling`, in the service's own implementation."""
        return {"importance_sampling": frozenset({"ratio_log_cap"})}

    async def open(self, run: RunContext) -> None:
        """Make or reuse trainer and deployments, all of the run's at once, and wait until they are there."""
        from distillkit_builtin.fireworks.live_student import FireworksPupil

        if self._service is None:
            raise RuntimeError("FireworksStudent is opened before it was checked")
        self._run = run
        self._pupil = await FireworksPupil.open(run, self, self._service)

    async def close(self) -> None:
        """Clean up what the run made, with the last plugin that uses the service.

        Raises:
            RunFailedError: if something could not be cleaned up and the run itself ended well.
        """
        self._pupil = None
        if self._service is None or self._run is None:
            return
        problems = await self._service.leave(self._run)
        if problems and self._exported:
            raise RunFailedError("\n".join(["the run ended well, but its clean-up failed:", *problems]))

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step."""
        return await self._open_pupil().train(batch)

    async def publish(self, version: int) -> Weights:
        """Hot-load the current weights into the student's deployment."""
        return await self._open_pupil().publish(version)

    async def sync(self, weights: Weights) -> None:
        """Sample as this version from now on."""
        await self._open_pupil().sync(weights)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Draw completions from the policy of the last sync."""
        async for outcome in self._open_pupil().sample(requests):
            yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score given tokens under the policy of the last sync, for evaluators."""
        async for outcome in self._open_pupil().score(requests):
            yield outcome

    def metrics(self) -> Mapping[str, float]:
        """`concurrency/student/window` and so on."""
        return {} if self._service is None else self._service.concurrency_metrics("student")

    async def save(self, path: Path) -> None:
        """The service saves weights and optimizer; `path` gets a record of where."""
        await self._open_pupil().save(path)

    async def load(self, path: Path) -> None:
        """Take back what `save` wrote, from whichever trainer holds it."""
        await self._open_pupil().load(path)

    async def export(self, run_dir: Path) -> Path:
        """`model/`, which says where the final weights are; they are saved, and promoted if that is asked for."""
        path = await self._open_pupil().export(run_dir)
        self._exported = True
        return path

    def _open_pupil(self) -> "FireworksPupil":
        if self._pupil is None:
            raise RuntimeError("FireworksStudent is used before open() or after close()")
        return self._pupil
