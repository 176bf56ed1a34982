"""The recipe's dataclasses, with its fields and defaults. What each becomes here: docs/moving-from-the-cookbook.md."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

EvalCallback = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Synchronous, may call `asyncio.run`; gets the recipe's context, gives metrics."""

DEFAULT_DATASET = "https://raw.githubusercontent.com/eval-protocol/python-sdk/main/development/gsm8k_sample.jsonl"


class DistillMode(StrEnum):
    """The loss of the distillation."""

    SAMPLED_REVERSE_KL = "sampled_reverse_kl"
    TOPK_FORWARD_KL = "topk_forward_kl"


class WeightSyncScope(Enum):
    """Whether the bucket that new weights go through belongs to the trainer or the deployment."""

    PER_TRAINER = "per_trainer"
    PER_DEPLOYMENT = "per_deployment"


@dataclass(frozen=True)
class TeacherConfig:
    """One teacher of several."""

    model: str
    route_value: str | None = None
    """The value of the route key in its rows; None: the model."""
    deployment_id: str | None = None
    deployment_shape: str | None = None
    teacher_messages_key: str = "teacher_messages"
    tokenizer_model: str | None = None
    blend_weight: float = 1.0

    @property
    def routing_value(self) -> str:
        """The value of a row's route key that routes it to this teacher."""
        return self.route_value or self.model


@dataclass
class MultiTeacherConfig:
    """Teachers, and the row field that chooses one of them."""

    teachers: list[TeacherConfig] = field(default_factory=list)
    route_key: str = "teacher"


@dataclass
class ConcurrencyConfig:
    """How many sampling requests are under way at once."""

    mode: str | None = "adaptive"
    max_concurrency: int | None = None
    initial_window: int | None = None
    """None stands for 8 a replica."""
    min_window: int = 1
    max_window: int = 256
    prefill_queue_target: float = 0.5
    rollout_adjustment_interval: int = 32


@dataclass
class TrainerConfig:
    """The trainer job."""

    job_id: str | None = None
    training_shape_id: str | None = None
    reference_training_shape_id: str | None = None
    reference_job_id: str | None = None
    cleanup_reference_on_close: bool = True
    custom_image_tag: str | None = None
    region: str | None = None
    node_count: int | None = None
    timeout_s: float = 3600
    pending_timeout_s: float = 48 * 60 * 60
    extra_args: list[str] | None = None
    replica_count: int | None = None
    inactivity_timeout: str | None = None
    disable_inactivity_cleanup: bool = False
    purpose: str | None = None
    preemptible: bool = False
    managed_by: str | None = None
    skip_validations: bool = False
    use_reservation: bool = True


@dataclass
class DeployConfig:
    """The deployment that the student is sampled from."""

    weight_sync_scope: WeightSyncScope = WeightSyncScope.PER_TRAINER
    deployment_id: str | None = None
    deployment_shape: str | None = None
    deployment_accelerator_type: str | None = None
    hot_load_bucket_type: str = "FW_HOSTED"
    hot_load_trainer_job: str | None = None
    enable_hot_load: bool = True
    hot_load_transition_type: str | None = None
    deployment_timeout_s: float = 5400
    reattach_settle_timeout_s: int = 600
    deployment_extra_args: list[str] | None = None
    tokenizer_model: str | None = None
    """Required: `org/name` on the Hugging Face hub, or a local directory."""
    tokenizer_revision: str | None = None
    sample_timeout: int = 600
    disable_speculative_decoding: bool = False
    replica_count: int | None = None
    extra_values: dict[str, str] | None = None
    preemptible: bool = False


@dataclass
class WandBConfig:
    """Weights & Biases: on when an entity is set."""

    entity: str | None = None
    project: str | None = None
    run_name: str | None = None


@dataclass
class RunnerConfig:
    """Files for whatever started the run; None: what COOKBOOK_STATUS_FILE and its like say, else none."""

    status_file: str | None = None
    metadata_file: str | None = None
    metrics_file: str | None = None
    output_model_path: str | None = None


@dataclass
class Config:
    """One run of the recipe."""

    log_path: str
    base_model: str = "accounts/fireworks/models/qwen3-8b"
    rollout_base_model: str | None = None
    dataset: str = DEFAULT_DATASET
    teacher_model: str = ""
    teacher_deployment_id: str | None = None
    teacher_deployment_shape: str | None = None
    teacher_replica_count: int = 1
    teacher_deployment_timeout_s: float = 5400
    teacher_inference_url: str | None = None
    distill_mode: DistillMode | str = DistillMode.SAMPLED_REVERSE_KL
    sdft_top_k: int = 5
    multi_teacher: MultiTeacherConfig | None = None
    learning_rate: float = 1e-5
    opd_loss_scale: float = 1.0
    ratio_log_cap: float = 20.0
    completions_per_prompt: int = 1
    max_completion_tokens: int = 1024
    temperature: float = 1.0
    epochs: int = 1
    max_rows: int | None = 100
    max_seq_len: int | None = None
    lora_rank: int = 0
    lora_alpha: int | None = 32
    prompt_groups_per_step: int = 1
    grad_accumulation_normalization: str | None = None
    """Also the SDK's `GradAccNormalization`."""
    grad_clip_norm: float = 0.0
    concurrency: ConcurrencyConfig = field(default_factory=ConcurrencyConfig)
    init_from_checkpoint: str | None = None
    warm_start_from_adapter: str | None = None
    output_model_id: str | None = None
    save_final_checkpoint: bool = True
    step_timeout: int = 0
    """Seconds; 0: an hour."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    deployment: DeployConfig = field(default_factory=DeployConfig)
    weight_sync_interval: int = 1
    weight_sync_before_training: bool = False
    weight_sync_timeout: int = 600
    dcp_save_interval: int = 10
    wandb: WandBConfig = field(default_factory=lambda: WandBConfig(project="distillation-tinker"))
    runner: RunnerConfig = field(default_factory=RunnerConfig)
    post_training_eval: EvalCallback | None = None
    step_eval: EvalCallback | None = None
    step_eval_interval: int = 0
    """In synced steps; 0: not while training."""
    eval_before_training: bool = False
