"""The options of student and scorer `fireworks`: mixins of the plugins, and all that live objects are given of them.

Where the recipe's `Config` has an option, it has the recipe's name: `trainer.job_id`, `deployment.replica_count`.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Cleanup = Literal["scale_to_zero", "delete", "keep"]
"""How the run ends with a deployment: it is kept, scaled to zero, or deleted."""
CLEANUP = "What becomes of a deployment that this run made: scale_to_zero, delete or keep."
SERVICE = "The service; null: FIREWORKS_BASE_URL, else api.fireworks.ai."


class FrozenOptions(BaseModel):
    """Frozen, and without keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainerOptions(FrozenOptions):
    """The trainer job: an existing one, or what a new one is made of."""

    training_shape_id: str = Field(
        min_length=1, description="The trainer's shape, accounts/NAME/trainingShapes/NAME[/versions/NAME]."
    )
    job_id: str | None = Field(
        None, description="An existing trainer job to use, which is left alone in the end; or the id of a new one."
    )
    keep: bool = Field(False, description="Leave a trainer that this run made running: it costs money.")
    replica_count: int | None = Field(
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
    inactivity_timeout: float | None = Field(
        None,
        gt=0,
        le=10800,
        description="The service stops a new trainer that hears of nobody, as after a kill, for so many seconds; null: "
        "the service's own choice, an hour.",
    )


class StudentDeploymentOptions(FrozenOptions):
    """The deployment that the student is sampled from: an existing one, or what a new one is made of."""

    deployment_id: str | None = Field(
        None, description="An existing deployment to sample from, which is left alone in the end; or a new one's id."
    )
    deployment_shape: str | None = Field(
        None, description="The deployment's shape; null: the one that goes with the training shape."
    )
    replica_count: int = Field(1, ge=1, description="Its replicas, where it is made or woken.")
    cleanup: Cleanup = Field("scale_to_zero", description=CLEANUP)
    disable_speculative_decoding: bool = Field(
        False, description="A new deployment samples each token from the student itself."
    )
    hot_load_transition_type: Literal["ASYNC", "SYNC"] | None = Field(
        None,
        description="What becomes of requests that run while new weights are loaded. SYNC: they end on the old ones; "
        "ASYNC: they go on with the new ones; null: the service's choice, ASYNC.",
    )


class TeacherDeploymentOptions(FrozenOptions):
    """The frozen deployment of a base model: an existing one, or what a new one is made of."""

    deployment_id: str | None = Field(
        None, description="The deployment to make or reuse for a base model; null: one named after the model."
    )
    deployment_shape: str | None = Field(None, description="Its shape; null: the service's choice.")
    replica_count: int = Field(1, ge=1, description="Its replicas, where it is made or woken.")
    cleanup: Cleanup = Field("scale_to_zero", description=CLEANUP)


class Concurrency(FrozenOptions):
    """How many requests a deployment is sent at once."""

    initial: int = Field(8, ge=1, description="Requests at once at the start; adapts itself.")
    max: int = Field(256, ge=1, description="Requests at once, at most.")


class StudentTimeouts(FrozenOptions):
    """How long each thing may take, in seconds."""

    request: float = Field(600.0, gt=0, description="Seconds for one attempt to sample a completion.")
    step: float = Field(1800.0, gt=0, description="Seconds for one training request, save or load.")
    trainer: float = Field(3600.0, gt=0, description="Seconds for the trainer to start, once it is not queued.")
    trainer_pending: float = Field(
        172800.0, gt=0, description="Seconds that the trainer may wait in the service's queue for machines."
    )
    deployment: float = Field(5400.0, gt=0, description="Seconds for the sampling deployment to be ready.")
    reattach_settle: float = Field(
        600.0, gt=0, description="Seconds for a running deployment to take its weights from another trainer."
    )
    weight_sync: int = Field(600, ge=1, description="Seconds for new weights to be loaded for sampling.")
    promotion: float = Field(7200.0, gt=0, description="Seconds to make a model of the final weights.")


class TeacherTimeouts(FrozenOptions):
    """How long each thing may take, in seconds."""

    request: float = Field(600.0, gt=0, description="Seconds for one attempt to score a completion.")
    deployment: float = Field(5400.0, gt=0, description="Seconds for the deployment to be ready.")


class FireworksStudentOptions(FrozenOptions):
    """What is trained, and by what. A mixin: `class FireworksStudent(FireworksStudentOptions, Student, Sampler)`."""

    moved: ClassVar[Mapping[str, str]] = {
        "training_shape_id": "trainer.training_shape_id",
        "trainer_job_id": "trainer.job_id",
        "keep_trainer": "trainer.keep",
        "trainer_replica_count": "trainer.replica_count",
        "region": "trainer.region",
        "use_reservation": "trainer.use_reservation",
        "custom_image_tag": "trainer.custom_image_tag",
        "inactivity_timeout": "trainer.inactivity_timeout",
        "deployment_id": "deployment.deployment_id",
        "deployment_shape": "deployment.deployment_shape",
        "replica_count": "deployment.replica_count",
        "deployment_cleanup": "deployment.cleanup",
        "disable_speculative_decoding": "deployment.disable_speculative_decoding",
        "hot_load_transition_type": "deployment.hot_load_transition_type",
        "initial_concurrency": "concurrency.initial",
        "max_concurrency": "concurrency.max",
        "request_timeout": "timeouts.request",
        "step_timeout": "timeouts.step",
        "trainer_timeout": "timeouts.trainer",
        "trainer_pending_timeout": "timeouts.trainer_pending",
        "deployment_timeout": "timeouts.deployment",
        "reattach_settle_timeout": "timeouts.reattach_settle",
        "weight_sync_timeout": "timeouts.weight_sync",
        "promotion_timeout": "timeouts.promotion",
    }

    model: str = Field(
        min_length=1,
        examples=["accounts/fireworks/models/qwen3-8b"],
        description="The base model's resource name, accounts/NAME/models/NAME.",
    )
    tokenizer_model: str = Field(
        min_length=1,
        examples=["Qwen/Qwen3-8B"],
        description="Its tokenizer: a local directory, or `org/name` on the Hugging Face hub.",
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
        description="What the service divides gradients by, besides `train.normalization`; null: not said. "
        "With anything but null or none, set train.normalization to sum.",
    )
    max_seq_len: int | None = Field(
        None, ge=2, description="The longest prompt plus completion in tokens; null: what the training shape allows."
    )
    base_url: str | None = Field(None, description=SERVICE)
    trainer: TrainerOptions = Field(description="The trainer job.")
    deployment: StudentDeploymentOptions = Field(
        StudentDeploymentOptions(), description="The deployment that it is sampled from."
    )
    concurrency: Concurrency = Field(Concurrency(), description="How many completions are sampled at once.")
    timeouts: StudentTimeouts = Field(StudentTimeouts(), description="How long each thing may take.")
    weight_sync_before_training: bool = Field(
        False, description="Also publish the untouched weights of a new run; a loaded student is always published."
    )
    init_from_checkpoint: str | None = Field(
        None,
        description="Start from a checkpoint, with its optimizer's state: JOB:NAME, or NAME of trainer.job_id's.",
    )
    warm_start_from_adapter: str | None = Field(
        None, description="Start from a LoRA, accounts/NAME/models/NAME or gs://..., with a new optimizer."
    )
    save_final_checkpoint: bool = Field(True, description="Save the final weights at the service.")
    output_model_id: str | None = Field(None, description="Make a model of this id of the final weights.")


class FireworksScorerOptions(FrozenOptions):
    """How a frozen teacher is served. A mixin: `class FireworksScorer(FireworksScorerOptions, Scorer, Sampler)`."""

    moved: ClassVar[Mapping[str, str]] = {
        "deployment_id": "deployment.deployment_id",
        "deployment_shape": "deployment.deployment_shape",
        "replica_count": "deployment.replica_count",
        "deployment_cleanup": "deployment.cleanup",
        "initial_concurrency": "concurrency.initial",
        "max_concurrency": "concurrency.max",
        "request_timeout": "timeouts.request",
        "deployment_timeout": "timeouts.deployment",
    }

    base_url: str | None = Field(None, description=SERVICE)
    inference_url: str | None = Field(None, description="Where completions are requested; null: at base_url.")
    deployment: TeacherDeploymentOptions = Field(
        TeacherDeploymentOptions(), description="The deployment of a base model."
    )
    concurrency: Concurrency = Field(Concurrency(), description="How many completions are scored at once.")
    timeouts: TeacherTimeouts = Field(TeacherTimeouts(), description="How long each thing may take.")
