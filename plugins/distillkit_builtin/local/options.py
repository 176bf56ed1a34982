"""The options of student and scorer `local`: mixins of the plugins, which are all that their live objects are given."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from distillkit_builtin.local.option_types import FORWARD, DeviceName, DTypeName, ExportDType, ForwardName

LORA_LEARNING_RATE = 2e-4
FULL_LEARNING_RATE = 1e-5
LAYER_NAMES = re.compile(r"[\w.]+(,[\w.]+)*")
LONGEST_SHOWN = 60
"""Letters of a wrong value that are shown."""


class LocalStudentOptions(BaseModel):
    """What is trained, how, and on what. A mixin: `class LocalStudent(LocalStudentOptions, Student, Sampler)`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        examples=["Qwen/Qwen3-0.6B"],
        min_length=1,
        description="A local directory, or `org/name` on the Hugging Face hub. A PEFT adapter stands for its base "
        "model with the adapter merged into it.",
    )
    adapter: str | None = Field(
        None,
        min_length=1,
        description="Go on training the LoRA in this directory, such as another run's adapter/, which must be one of "
        "`model`. It keeps its rank, alpha and layers, so leave lora_rank and lora_alpha out. null: start a new one.",
    )
    tokenizer_model: str | None = Field(None, description="Where its tokenizer is found; null: the model.")
    device: DeviceName = Field("auto", description="auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.")
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="What is computed in; trained weights are float32 always. float16 would need its loss scaled.",
    )
    lora_rank: int = Field(
        16,
        ge=0,
        description="Rank of the LoRA on the linear layers of the text decoder, but its head, routers and experts; 0: "
        "train all weights.",
    )
    lora_alpha: int = Field(32, ge=1, description="The LoRA is scaled by lora_alpha / lora_rank.")
    target_modules: list[str] | None = Field(
        None,
        min_length=1,
        examples=[["q_proj", "v_proj"]],
        description="Put the LoRA on these of those layers alone: names, or ends of names, as PEFT reads a list. null: "
        "on all.",
    )
    experts: bool = Field(
        False,
        description="Put the LoRA on the weights of a mixture's experts too: many more numbers, slower training, and "
        "vLLM does not load such an adapter.",
    )
    lora_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout before the LoRA, in training only; all other dropout of the model is off."
    )
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
        description="Gradients are accumulated over parts of this many tokens; null: 16,384 on cuda (a LoRA on wider "
        "layers takes fewer, down to 4,096 for an 8B; the narrowest, up to about 0.6B, 24,576 on a card of 80 GB and "
        "more), else 4,096. "
        "Where the device has not enough memory for it, it is halved (not where weights are sharded).",
    )
    loss_chunk_positions: int | None = Field(
        None,
        ge=1,
        description="Losses that read whole distributions see this many positions at once, others four times as many "
        "where the head is trained; null: 512 on cuda, else 128. Where the device has not enough memory for it, it is "
        "halved, before micro_batch_tokens is.",
    )
    compile: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Compile the layers that are trained by torch.compile: about 20 s at the first step, less once its "
        "cache on disk (TORCHINDUCTOR_CACHE_DIR) is there. auto: on cuda, architectures like Llama whose sequences are "
        "packed; always: whatever is packed, and an error elsewhere.",
    )
    shard: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Where torchrun started several processes and all weights are trained: each keeps a part of the "
        "weights, gradients and moments (FSDP2) instead of all. auto: where they would take over 80% of a cuda device. "
        "Not for a LoRA.",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, slower training.")
    sample_batch_size: int = Field(64, ge=1, description="At most this many completions are sampled at once.")
    sampling_weights: Literal["auto", "merged", "adapter"] = Field(
        "auto",
        description="How the student's own sampler holds a LoRA. merged: in another copy of the weights that it is on; "
        "adapter: as training does, beside the base's only copy, which takes less memory and samples a little slower "
        "on cuda. auto: merged, unless base and copy would take over half of a cuda device. Weights in few bits have "
        "it beside them always.",
    )
    forward: ForwardName = Field("auto", description=FORWARD)
    export_dtype: ExportDType | None = Field(
        None,
        description="The format of whole models that are written. float32: all that was trained; base: as the base "
        "model's weights are (bfloat16 takes half the space). null: float32 where all weights were trained, base where "
        "`distillkit export --merge` merges a LoRA.",
    )

    @field_validator("target_modules", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:  # noqa: ANN401 - a raw option
        if not isinstance(value, str):
            return value
        name = value if LAYER_NAMES.fullmatch(value) else "q_proj,v_proj"
        raise ValueError(
            "is a list of names of layers, on the command line student.target_modules=[" + name + "]; leave it out "
            f"(null) for all linear layers of the text decoder; not {value[:LONGEST_SHOWN]!r}"
        )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:  # noqa: ANN401 - raw options
        if isinstance(values, dict) and values.get("adapter") and not values.get("model"):
            raise ValueError("adapter needs `model` beside it: the base model that the adapter was trained on")
        if isinstance(values, dict) and values.get("experts") and values.get("lora_dropout"):
            raise ValueError(
                "lora_dropout drops inputs of a LoRA, and one on experts is added to their weights; with experts take "
                "lora_dropout: 0"
            )
        if isinstance(values, dict) and values.get("lora_rank") == 0:
            if values.get("sampling_weights") == "adapter":
                raise ValueError(
                    "sampling_weights: adapter holds a LoRA, and lora_rank: 0 trains all weights; take auto"
                )
            for name in ("target_modules", "experts"):
                if values.get(name):
                    raise ValueError(
                        f"{name} chooses layers of a LoRA, and lora_rank: 0 trains all weights; leave it out"
                    )
            return {"learning_rate": FULL_LEARNING_RATE, **values}
        return values

    def layers(self) -> tuple[tuple[str, ...] | None, bool]:
        """`target_modules` and `experts`, which say what a LoRA is put on."""
        return None if self.target_modules is None else tuple(self.target_modules), self.experts

    def chosen_ranks(self) -> dict[str, int]:
        """`lora_rank` and `lora_alpha` where they are not the defaults, which a run's own config.yaml names too."""
        ranks = {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha}
        return {name: rank for name, rank in ranks.items() if rank != type(self).model_fields[name].default}


class LocalScorerOptions(BaseModel):
    """How a teacher is computed. A mixin: `class LocalScorer(LocalScorerOptions, Scorer, Sampler)`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: DeviceName = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    dtype: DTypeName = Field("auto", description="What is computed in; auto: bfloat16 where the device is fast in it.")
    micro_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="At most this many (padded) tokens are scored at once; null: 16,384 on cuda, else 8,192.",
    )
    forward: ForwardName = Field("auto", description=FORWARD)
