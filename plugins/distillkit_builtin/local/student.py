"""Student `local`: trained and sampled in this process."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from distillkit import Sampler, Student
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.records import Batch, Failure, Rollout, Score, ScoreRequest, StepResult, Weights
from distillkit.roles.plugin import CheckReport
from distillkit.tokenizer import Tokenizer
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.local.fingerprint import model_fingerprint
from distillkit_builtin.local.requirements import (
    FORWARD,
    DeviceName,
    ForwardName,
    context_length,
    local_report,
    require_config,
)

if TYPE_CHECKING:
    from distillkit_builtin.local.live_student import LiveLocalStudent
    from distillkit_builtin.local.ranks.data_parallel import DataParallelStudent

LORA_LEARNING_RATE = 2e-4
FULL_LEARNING_RATE = 1e-5


class LocalStudent(Student, Sampler):
    """A LoRA, or all weights, trained in this process with PyTorch, transformers and PEFT."""

    name: ClassVar[str] = "local"
    runs_torch_losses: ClassVar[bool] = True
    loads_in_place: ClassVar[bool] = True
    spreads: ClassVar[bool] = True
    writes: ClassVar[frozenset[str]] = frozenset({"adapter", "model", "weights"})
    volatile: ClassVar[frozenset[str]] = frozenset(
        {"device", "micro_batch_tokens", "gradient_checkpointing", "sample_batch_size", "forward", "compile", "shard"}
    )

    model: str = Field(min_length=1, description="A local directory, or `org/name` on the Hugging Face hub.")
    tokenizer_model: str | None = Field(None, description="Where its tokenizer is found; null: the model.")
    device: DeviceName = Field("auto", description="auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="What is computed in; trained weights are float32 always. float16 would need its loss scaled.",
    )
    lora_rank: int = Field(16, ge=0, description="Rank of the LoRA on all linear layers; 0: train all weights.")
    lora_alpha: int = Field(32, ge=1, description="The LoRA is scaled by lora_alpha / lora_rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA, in training only.")
    learning_rate: float = Field(
        LORA_LEARNING_RATE, gt=0, description="AdamW's; the default is for a LoRA, with lora_rank: 0 it is 1e-5."
    )
    lr_schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="After the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Steps over which the learning rate rises from 0.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's.")
    adam_betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's.")
    grad_clip_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this norm; 0: not clipped.")
    micro_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="Gradients are accumulated over parts of this many tokens; null: 16,384 on cuda, else 4,096. "
        "Where the device has no room for it, it is halved (not where weights are sharded).",
    )
    compile: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Compile the layers that are trained by torch.compile: about 20 s at the first step, less once its "
        "cache on disk (TORCHINDUCTOR_CACHE_DIR) is there. auto: on cuda, where sequences are packed; always: an error "
        "elsewhere.",
    )
    shard: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Where torchrun started several processes and all weights are trained: each keeps a part of the "
        "weights, gradients and moments (FSDP2) instead of all. auto: where they would take over 80% of a cuda device. "
        "Not for a LoRA.",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, slower training.")
    sample_batch_size: int = Field(64, ge=1, description="At most this many completions are drawn at once.")
    forward: ForwardName = Field("auto", description=FORWARD)

    _pupil: "LiveLocalStudent | DataParallelStudent | None" = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _default_learning_rate(cls, values: Any) -> Any:  # noqa: ANN401 - raw options
        if isinstance(values, dict) and values.get("lora_rank") == 0:
            return {"learning_rate": FULL_LEARNING_RATE, **values}
        return values

    def check(self, run: RunContext) -> CheckReport:
        """Read the model's config; say what will be loaded and what it takes."""
        require_config(self.model)
        if self.shard == "always" and (self.lora_rank or run.rank.count == 1):
            alone = "there is one process; start several by torchrun, or take auto"
            why = "a LoRA is never sharded; take auto" if self.lora_rank else alone
            raise InputError(f"student.shard: always cannot be used: {why}")
        what = f"LoRA of rank {self.lora_rank}" if self.lora_rank else "all weights"
        who = f"student ({what})"
        report = local_report(self.model, who, self.device, self.dtype, run=run, lora_rank=self.lora_rank)
        if self.compile == "always" and not report.missing:
            from distillkit_builtin.local.device import require_compilable

            require_compilable(self.device, run.rank)
        return report

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The tokenizer of `tokenizer_model`, or of the model."""
        return shared_tokenizer(run, self.tokenizer_model or self.model)

    def context_length(self, run: RunContext) -> int | None:
        """As the model's config says."""
        return context_length(self.model)

    def fingerprint(self) -> Mapping[str, str]:
        """Of config and weights."""
        return model_fingerprint(self.model)

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        """`importance_sampling`; others by their own torch function."""
        return {"importance_sampling": frozenset({"ratio_log_cap"})}

    async def open(self, run: RunContext) -> None:
        """Load the model and make the LoRA, the sampling copy and the optimizer."""
        from distillkit_builtin.local.ranks.data_parallel import open_pupil

        self._pupil = await open_pupil(run, self)

    async def until_broken(self) -> None:
        """Where there are several ranks, until one is gone."""
        await self._open_pupil().until_broken()

    async def work(self, run: RunContext) -> None:
        """Draw, score and train shares of the run, as rank 0 says."""
        from distillkit_builtin.local.ranks.worker import serve

        await serve(run, self)

    async def close(self) -> None:
        """Forget the model; the run frees it after its last user."""
        self._pupil = None

    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step."""
        return await self._open_pupil().train(batch)

    async def publish(self, version: int) -> Weights:
        """For this student's own sampler nothing is written; another one finds an adapter or model directory."""
        return await self._open_pupil().publish(version, to_disk=self.sampler is not None)

    async def sync(self, weights: Weights) -> None:
        """Merge the current weights into the sampling copy."""
        await self._open_pupil().sync(weights)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Draw completions from the policy of the last sync."""
        async for rollout in self._open_pupil().sample(requests):
            yield rollout

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Score given tokens under the policy of the last sync, for evaluators."""
        async for score in self._open_pupil().score(requests):
            yield score

    async def save(self, path: Path) -> None:
        """Weights, optimizer and scheduler, as safetensors."""
        await self._open_pupil().save(path)

    async def load(self, path: Path) -> None:
        """Take back what `save` wrote."""
        await self._open_pupil().load(path)

    async def export(self, run_dir: Path) -> Path:
        """`adapter/` in PEFT format, or `model/` where all weights were trained."""
        return await self._open_pupil().export(run_dir)

    def _open_pupil(self) -> "LiveLocalStudent | DataParallelStudent":
        if self._pupil is None:
            raise RuntimeError("LocalStudent is used before open() or after close()")
        return self._pupil
