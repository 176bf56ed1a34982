"""The sections of a config that hold no plugin of the run itself, but the teachers."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from distillkit.roles.number_options import NumberOptions
from distillkit.roles.scorer import Scorer
from distillkit.types import SamplingParams, Teacher

DEFAULT_MESSAGES_KEY = "teacher_messages"
T = TypeVar("T")


class Section(NumberOptions):
    """A part of the config: frozen, and no key unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TeacherConfig(Section):
    """One teacher: a frozen model, the rows that are routed to it, and how it is reached."""

    model: str = Field(min_length=1, description="The teacher's model, as its scorer understands it.")
    route_value: str | None = Field(None, description="The value of the route key in its rows; null: the model.")
    teacher_messages_key: str = Field(
        DEFAULT_MESSAGES_KEY, description="The row field with the privileged prompt that only this teacher reads."
    )
    missing_teacher_messages: Literal["student", "error"] | None = Field(
        None,
        description="A row without that field: scored under the student's messages, or an error. "
        "Null: `student` for the key `teacher_messages`, `error` for a key of its own.",
    )
    tokenizer_model: str | None = Field(None, description="Where its tokenizer is found; null: the model.")
    chat_template_kwargs: dict[str, JsonValue] | None = Field(
        None, description="Options for its chat template (`enable_thinking: false`); null: the student's."
    )
    turn_end: Literal["same", "map"] = Field(
        "same",
        description="same: what ends the student's completions must be what ends this teacher's turns, or the run is "
        "refused; map: the student's end is scored as this teacher's own.",
    )
    weight: float = Field(
        1.0,
        gt=0,
        description="Its part of the mixture where a row has several teachers (`router: all`), relative to theirs.",
    )
    share: float | None = Field(
        None,
        gt=0,
        description="Its part of the rows of each window, beside the shares of the other teachers, which must have one "
        "too; null: as many as there are in the data.",
    )
    scorer: Scorer = Field(description="How its logprobs are had; by default the scorer named like the student.")

    @model_validator(mode="after")
    def _bind_scorer(self) -> Self:
        self.scorer.bind(self._alone())
        return self

    @property
    def teacher(self) -> Teacher:
        """The teacher as routers and prompt builders see it, called as the config that it is part of calls it."""
        return self.scorer.teacher

    def _alone(self) -> Teacher:
        missing = self.missing_teacher_messages
        if missing is None:
            missing = "student" if self.teacher_messages_key == DEFAULT_MESSAGES_KEY else "error"
        name = self.route_value if self.route_value is not None else self.model
        return Teacher(
            name=name,
            model=self.model,
            weight=self.weight,
            messages_key=self.teacher_messages_key,
            missing_messages=missing,
            tokenizer_model=self.tokenizer_model or self.model,
            chat_template_kwargs=self.chat_template_kwargs,
        )


def shares_of(teachers: Sequence[TeacherConfig]) -> dict[str, float]:
    """Teacher name to its `share`; empty where none is set. Raises ValueError where some are set and some are not."""
    shares = {section.teacher.name: section.share for section in teachers}
    given = {name: share for name, share in shares.items() if share is not None}
    lacks = [name for name in shares if name not in given]
    if given and lacks:
        raise ValueError(
            f"teachers: {next(iter(given))!r} has a share and {lacks[0]!r} has none; give every teacher one, or none"
        )
    return given


class SamplingConfig(Section):
    """How the student's completions are sampled."""

    completions_per_prompt: int = Field(1, ge=1, description="Completions of each prompt in a step.")
    max_completion_tokens: int = Field(256, ge=1, description="A completion is cut here.")
    temperature: float = Field(1.0, ge=0, description="1 samples the policy itself; 0 takes the most likely token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Keep the most likely tokens of this total probability.")
    top_k: int = Field(0, ge=0, description="Keep this many of the most likely tokens; 0: all.")
    stop: tuple[str, ...] = Field(
        (), description="Strings that end a completion; one that is a special token is taken for its id."
    )
    stop_ids: tuple[Annotated[int, Field(strict=True, ge=0)], ...] = Field(
        (), description="Token ids that end a completion besides the model's own; each stays its last token."
    )
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options for the student's chat template (`enable_thinking: false`)."
    )
    template_date: date | None = Field(
        None,
        description="The day that chat templates write where they ask for today's (`2026-11-29`); null: the day on "
        "which the run begins, also after a resume.",
    )

    @field_validator("stop")
    @classmethod
    def _can_be_found(cls, stops: tuple[str, ...]) -> tuple[str, ...]:
        for stop in stops:
            if not stop:
                raise ValueError("holds an empty string, which would end every completion at its first token")
            if "\ufffd" in stop or not _is_unicode(stop):
                raise ValueError(f"holds {stop!r}, which no text contains: it stands for bytes that are no character")
        return _each_once(stops)

    @field_validator("stop_ids")
    @classmethod
    def _each_id_once(cls, ids: tuple[int, ...]) -> tuple[int, ...]:
        return _each_once(ids)

    @property
    def params(self) -> SamplingParams:
        """As the config has it. Samplers get `PreparedRun.sampling`, which holds all ids that end a completion."""
        return SamplingParams(
            self.max_completion_tokens, self.temperature, self.top_p, self.top_k, self.stop, self.stop_ids
        )


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if twice is not None:
        raise ValueError(f"holds {twice!r} twice")
    return values


class PricesConfig(Section):
    """What tokens cost you: `distillkit check` multiplies by them, and nothing else does."""

    sample_per_million_tokens: float | None = Field(None, ge=0, description="Of completions that the student samples.")
    score_per_million_tokens: float | None = Field(
        None, ge=0, description="Of prompts and completions that teachers score."
    )
    train_per_million_tokens: float | None = Field(
        None, ge=0, description="Of prompts and completions that the student is trained on."
    )
    currency: str = Field("USD", min_length=1, description="What they are in.")


class ProbeConfig(Section):
    """Whether a run measures its sampler and teachers before it trains."""

    at_start: Literal["auto", "always", "never"] = Field(
        "auto",
        description="auto: where the probe takes at most 5% of the tokens that the run plans, and not at a resume; "
        "always: at a resume too.",
    )
    rows: int = Field(
        16, ge=1, description="Rows that are sampled and scored, a completion each, spread over the teachers."
    )


class GuardsConfig(Section):
    """What counts as a collapse of the student, and what is done then."""

    action: Literal["off", "warn", "stop"] = Field(
        "warn",
        description="off: do not look; warn: tell the user; stop: save a checkpoint and fail the run, which "
        "`--resume --from-step N` goes on from an older one.",
    )
    window: int = Field(10, ge=1, description="Steps whose means are compared.")
    truncated_rise: float | None = Field(
        0.5, gt=0, le=1, description="The share of completions cut at the limit has risen by this; null: never."
    )
    repetition_rise: float | None = Field(
        0.3, gt=0, le=1, description="`completions/repetition` has risen by this; null: never."
    )
    entropy_fall: float | None = Field(
        0.1,
        gt=0,
        lt=1,
        description="`train/sampling_nll`, which estimates the entropy, fell below this share of what "
        "it was; null: never.",
    )
    reverse_kl_rise: float | None = Field(
        0.5,
        gt=0,
        description="`train/reverse_kl` is higher than in its best window by this share (and by 0.05 nats); "
        "null: never.",
    )
    route_gap_rise: float | None = Field(
        0.5,
        gt=0,
        description="One teacher's `teacher_route/<slug>/reverse_kl` is higher than in its best window by this share "
        "(and by 0.05 nats), while another's has fallen by 0.05 nats since the first window; null: never.",
    )
