"""`RunConfig`: everything that a run is, in sections of few fields each."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from distillkit.config.option_problems import Problem, models_in, option_problems
from distillkit.errors import ConfigError
from distillkit.loop.guards import GuardsConfig
from distillkit.registry import Registry
from distillkit.roles.evaluator import Evaluator
from distillkit.roles.loss import Loss
from distillkit.roles.plugin import Plugin
from distillkit.roles.prompt_builder import PromptBuilder
from distillkit.roles.router import Router
from distillkit.roles.scorer import Scorer
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student
from distillkit.types import SamplingParams, Teacher

DEFAULT_MESSAGES_KEY = "teacher_messages"


class Section(BaseModel):
    """A part of the config: frozen, and no key unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """The prompts: JSON lines, one row each."""

    path: str = Field(description="JSONL file with the rows to train on.")
    eval_path: str | None = Field(None, description="JSONL file with held-out rows for the evaluators.")
    max_rows: int | None = Field(None, ge=1, description="Use the file's first rows only, shuffled or not.")
    max_eval_rows: int | None = Field(None, ge=1, description="Use the first held-out rows only.")
    epochs: int = Field(1, ge=1, description="How often the rows are gone through.")
    shuffle: bool = Field(True, description="Shuffle the rows of each epoch by the run's seed.")


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
    weight: float = Field(1.0, gt=0, description="For losses that blend the teachers of a row.")
    scorer: Scorer = Field(description="How its logprobs are had; by default the scorer named like the student.")

    @model_validator(mode="after")
    def _bind_scorer(self) -> Self:
        self.scorer.bind(self.teacher)
        return self

    @property
    def teacher(self) -> Teacher:
        """The teacher as routers and prompt builders see it."""
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


class SamplingConfig(Section):
    """How the student's completions are drawn."""

    completions_per_prompt: int = Field(1, ge=1, description="Completions of each prompt in a step.")
    max_completion_tokens: int = Field(256, ge=1, description="A completion is cut here.")
    temperature: float = Field(1.0, ge=0, description="1 samples the policy itself; 0 takes the likeliest token.")
    top_p: float = Field(1.0, gt=0, le=1, description="Keep the likeliest tokens of this total probability.")
    top_k: int = Field(0, ge=0, description="Keep this many of the likeliest tokens; 0: all.")
    stop: tuple[str, ...] = Field((), description="Strings that end a completion.")
    chat_template_kwargs: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options for the student's chat template (`enable_thinking: false`)."
    )

    @property
    def params(self) -> SamplingParams:
        """The part that a Sampler sees."""
        return SamplingParams(self.max_completion_tokens, self.temperature, self.top_p, self.top_k, self.stop)


class TrainConfig(Section):
    """The loop: how many rows a step, how many steps, what is done every so often."""

    prompt_groups_per_step: int = Field(8, ge=1, description="Rows (each with its completions) in a step.")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many steps; null: when the rows are used up."
    )
    num_substeps: int = Field(1, ge=1, description="Optimizer steps on the rollouts of one step.")
    eval_every: int = Field(0, ge=0, description="Evaluate every so many steps; 0: only before and after.")
    save_every: int = Field(0, ge=0, description="Write a checkpoint every so many steps; 0: only the last.")
    keep_last: int = Field(2, ge=1, description="How many checkpoints are kept.")
    sample_every: int = Field(
        1, ge=0, description="Write completions to samples.jsonl every so many steps and at evaluations; 0: never."
    )
    samples_per_route: int = Field(2, ge=1, description="How many completions of each route are written then.")
    max_steps_off_policy: int = Field(
        0,
        ge=0,
        description="k: step s (counted from 1) trains completions of policy max(0, s-1-k), sampled while earlier "
        "steps train.",
    )
    weight_sync_interval: int = Field(
        1,
        ge=1,
        description="Publish the weights to the sampler every so many steps, and after the last; steps between train "
        "completions of the policy that was published last.",
    )
    max_bad_steps: int = Field(
        3,
        ge=0,
        description="The run fails after more optimizer steps in a row than this were refused, because a logprob, "
        "advantage, loss or gradient was not finite.",
    )
    warn_logprob_mismatch: float = Field(
        0.1,
        gt=0,
        description="Warn when the sampler's logprobs are further than this from the trainer's, in nats a token.",
    )
    max_failed_fraction: float = Field(
        0.1, ge=0, le=1, description="The run fails when more of the rows admitted so far than this have failed."
    )


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


def _path_shorthand(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class RunConfig(Section):
    """One run. `RunConfig(...)` in Python takes plugin instances wherever a file takes a name."""

    name: str = Field(
        "run", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The run's name; no slashes."
    )
    seed: int = Field(0, ge=0, description="Data order, sampling and initialisation derive from it.")
    log_path: str = Field("runs/{name}", description="Where the run writes; `{name}` is the run's name.")
    plugins: tuple[str, ...] = Field((), description="Python files with plugins of your own.")
    data: Annotated[DataConfig, BeforeValidator(_path_shorthand)] = Field(
        description="The prompts, or just their path."
    )
    student: Student = Field(description="The model that is trained.")
    teachers: tuple[TeacherConfig, ...] = Field(min_length=1, description="The frozen models that it learns from.")
    router: Router = Field(description="Which teacher scores a row.")
    prompts: PromptBuilder = Field(description="What student and teachers each read.")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How completions are drawn.")
    loss: Loss = Field(description="What is trained.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="The loop.")
    guards: GuardsConfig = Field(default_factory=GuardsConfig, description="Whether the student collapses.")
    evaluators: tuple[Evaluator, ...] = Field((), description="How progress is judged, on `data.eval_path`.")
    sinks: tuple[Sink, ...] = Field((), description="Where metrics and events also go.")
    prices: PricesConfig | None = Field(None, description="What tokens cost you, for `distillkit check`.")

    def __init__(self, /, *, registry: Registry | None = None, **values: Any) -> None:  # noqa: ANN401 - fields of any type
        """Validate `values`; names are looked up in `registry` (default: everything installed).

        Raises:
            ConfigError: naming each key that is wrong.
        """
        registry = registry or Registry.discover()
        try:
            self.__pydantic_validator__.validate_python(
                with_defaults(values), self_instance=self, context={"registry": registry}
            )
        except ValidationError as error:
            raise ConfigProblemsError(option_problems(error, RunConfig)) from error

    @model_validator(mode="after")
    def _check_routes(self) -> Self:
        names = [teacher.teacher.name for teacher in self.teachers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"teachers: two have the route value {twice[0]!r}; give each teacher a `route_value` of its own"
            )
        for key, plugins in (("evaluators", self.evaluators), ("sinks", self.sinks)):
            chosen = [plugin.name for plugin in plugins]
            again = sorted({name for name in chosen if chosen.count(name) > 1})
            if again:
                raise ValueError(f"{key}: {again[0]!r} stands there twice; their results could not be told apart")
        if self.evaluators and self.data.eval_path is None:
            raise ValueError("evaluators: need held-out rows; set data.eval_path, or evaluators to []")
        return self

    def dump(self) -> dict[str, JsonValue]:
        """The resolved config as plain JSON values; complete, so that it can be run again."""
        return self.model_dump(mode="json")

    def unreproducible(self, registry: Registry) -> list[str]:
        """The keys whose plugin a config file could not choose by name, such as an instance from `__main__`."""
        return [key for key, role, plugin in plugins_in(self) if not registry.knows(role, plugin, self.plugins)]


class ConfigProblemsError(ConfigError):
    """A config is wrong in one or more keys."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep the problems, so that a loader can add file and line."""
        lines = [f"{problem.key}: {problem.message}" if problem.location else problem.message for problem in problems]
        super().__init__("\n".join(lines))
        self.problems = problems


def plugins_in(value: object, key: str = "", role: str = "") -> Iterator[tuple[str, str, Plugin]]:
    """Every plugin in a part of the config with its key and the role it has there; also those inside plugins."""
    if isinstance(value, Plugin):
        yield key, role, value
    parts: Iterable[tuple[object, str, object]] = ()
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        parts = ((name, _role_in(field.annotation), getattr(value, name)) for name, field in fields.items())
    elif isinstance(value, Mapping):
        parts = ((part, role, inner) for part, inner in value.items())
    elif isinstance(value, list | tuple):
        parts = ((part, role, inner) for part, inner in enumerate(value))
    for part, its_role, inner in parts:
        yield from plugins_in(inner, f"{key}.{part}" if key else str(part), its_role)


def _role_in(annotation: object) -> str:
    return next((model.role for model in models_in(annotation) if issubclass(model, Plugin)), "")


FILLED_IN: Mapping[str, str] = {
    "router": "`single` for one teacher, `field` for several",
    "prompts": "`messages`",
    "loss": "`importance_sampling`",
    "evaluators": "`[reverse_kl]` where `data.eval_path` is set, else `[]`",
    "sinks": "`[console]`",
    "teachers[].scorer": "the one named like the student",
}
"""What `with_defaults` makes of a key that a config leaves out, in words, for the reference."""


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the plugins that a short config leaves out; options without a `name` are the default plugin's.

    The router is `field` for several teachers and `single` for one; a teacher's scorer is the one named like the
    student; evaluators are `reverse_kl` where there are held-out rows.
    """
    filled: dict[str, Any] = dict(values)
    teachers = filled.get("teachers")
    scorer = _name_of(filled.get("student"))
    several = isinstance(teachers, list | tuple) and len(teachers) > 1
    if isinstance(teachers, list | tuple):
        # Where the student is wrong, that is said once, and not again as a scorer that is missing.
        filled["teachers"] = [_with_scorer(teacher, scorer or "local") for teacher in teachers]
    filled["router"] = _named(filled.get("router"), "field" if several else "single")
    data = filled.get("data")
    if (isinstance(data, Mapping) and data.get("eval_path")) or (isinstance(data, DataConfig) and data.eval_path):
        filled.setdefault("evaluators", ["reverse_kl"])
    filled.setdefault("sinks", ["console"])
    filled["prompts"] = _named(filled.get("prompts"), "messages")
    filled["loss"] = _named(filled.get("loss"), "importance_sampling")
    return filled


def _with_scorer(teacher: object, name: str) -> object:
    return {**teacher, "scorer": _named(teacher.get("scorer"), name)} if isinstance(teacher, Mapping) else teacher


def _named(choice: object, default: str) -> object:
    if choice is None:
        return default
    return {"name": default, **choice} if isinstance(choice, Mapping) else choice


def _name_of(choice: object) -> str | None:
    if isinstance(choice, Student):
        return choice.name
    if isinstance(choice, Mapping):
        name = choice.get("name")
        return name if isinstance(name, str) else None
    return choice if isinstance(choice, str) else None
