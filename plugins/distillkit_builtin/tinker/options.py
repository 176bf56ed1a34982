"""The options of student and scorer `tinker`: mixins of the plugins, and all that live objects are given of them."""

import os

from pydantic import BaseModel, ConfigDict, Field, field_validator

from distillkit.errors import InputError
from distillkit_builtin.remote.options import names_a_variable, split_address

KEY = "TINKER_API_KEY"
BASE_URL = "TINKER_BASE_URL"
DEFAULT_BASE_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"


class FrozenOptions(BaseModel):
    """Frozen, and without keys that nobody reads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class TinkerConcurrency(FrozenOptions):
    """How many requests the server is sent at once."""

    max: int = Field(256, ge=1, description="Requests at once, at most.")


class RequestTimeouts(FrozenOptions):
    """How long each thing may take, in seconds."""

    request: float = Field(600.0, gt=0, description="Seconds for one completion or score, with the SDK's own retries.")


class TinkerOptions(FrozenOptions):
    """Where a Tinker server is, and how requests are sent to it."""

    base_url: str | None = Field(
        None, description="The server, as the SDK wants it (without /api/v1); null: TINKER_BASE_URL, else Tinker's own."
    )
    api_key_env: str = Field(
        KEY,
        description="The name of the environment variable that holds the key. A server that checks no key gets any "
        "that begins with tml-, which the SDK asks for.",
    )
    concurrency: TinkerConcurrency = Field(TinkerConcurrency(), description="How many requests are sent at once.")

    @property
    def root(self) -> str:
        """The server's address, without a trailing slash or /api/v1.

        Raises InputError, without repeating a password, if the environment's is no address.
        """
        if self.base_url:
            return _root(self.base_url)
        address = os.environ.get(BASE_URL, "").strip() or DEFAULT_BASE_URL
        try:
            split_address(address)
        except ValueError as error:
            raise InputError(f"{BASE_URL}: {error}") from error
        return _root(address)

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value.strip())
        return value

    @field_validator("api_key_env", mode="before")
    @classmethod
    def _is_a_name(cls, value: object) -> object:
        if not (isinstance(value, str) and names_a_variable(value)):
            raise ValueError(
                "wants the name of an environment variable, such as TINKER_API_KEY, and this looks like a key itself "
                "or is no name (it is not repeated here); export the key and name its variable"
            )
        return value


class TinkerScorerOptions(TinkerOptions):
    """What a teacher's live side needs to know besides the teacher."""

    timeouts: RequestTimeouts = Field(RequestTimeouts(), description="How long a request may take.")
    max_logprobs: int | None = Field(
        20,
        ge=1,
        description="How many most probable tokens a position the server gives at most, where it gives any: 20 is what "
        "tinker-cookbook asks for; null: any number.",
    )


class TinkerStudentTimeouts(RequestTimeouts):
    """How long each thing may take, in seconds."""

    step: float = Field(1800.0, gt=0, description="Seconds for one optimizer step, or to make, save or load a model.")
    weight_sync: float = Field(600.0, gt=0, description="Seconds for new weights to be there for sampling.")


class TinkerStudentOptions(TinkerOptions):
    """What is trained, and how. A mixin: `class TinkerStudent(TinkerStudentOptions, Student, Sampler)`."""

    model: str = Field(
        min_length=1,
        examples=["Qwen/Qwen3-8B"],
        description="The base model as the server calls it; at SkyRL what it was started with, which may be a path.",
    )
    tokenizer_model: str | None = Field(
        None,
        min_length=1,
        examples=["Qwen/Qwen3-8B"],
        description="Its tokenizer: a local directory, or `org/name` on the Hugging Face hub; null: the model's name "
        "before any colon.",
    )
    lora_rank: int = Field(
        32, ge=1, description="Rank of the LoRA, whose alpha is 32 at every server; Tinker takes powers of 2."
    )
    train_mlp: bool = Field(True, description="The LoRA is also on the layers of the MLPs.")
    train_attn: bool = Field(True, description="The LoRA is also on the layers of the attention.")
    train_unembed: bool = Field(True, description="The LoRA is also on the head, at servers that can.")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's.")
    adam_betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's.")
    grad_clip_norm: float = Field(
        0.0,
        ge=0,
        description="Gradients are clipped to this norm; 0: not clipped. Refused where the server says that it reads "
        "no such field.",
    )
    max_seq_len: int | None = Field(
        None, ge=2, description="The longest prompt plus completion in tokens; null: what the server says of the model."
    )
    checkpoint_ttl: int | None = Field(
        None,
        ge=3600,
        description="Seconds, an hour or more, after which the server deletes the checkpoints that a run saved there, "
        "but for the final weights; null: never. A run that is older than that cannot be resumed.",
    )
    timeouts: TinkerStudentTimeouts = Field(TinkerStudentTimeouts(), description="How long each thing may take.")

    @property
    def tokenizer_source(self) -> str:
        """Where the tokenizer is: a served name may be `name:peft:262144`."""
        return self.tokenizer_model or self.model.partition(":")[0]


def _root(url: str) -> str:
    return url.strip().rstrip("/").removesuffix("/api/v1").rstrip("/")
