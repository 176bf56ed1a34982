"""`RunConfig`: everything that a run is, in sections of few fields each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, Field, JsonValue, ValidationError, field_validator, model_validator

from distillkit.config.data_config import DataConfig
from distillkit.config.default_plugins import with_defaults
from distillkit.config.fitting_answers import with_fitting_answers
from distillkit.config.option_problems import Problem, models_in, option_problems
from distillkit.config.row_format_config import require_routes
from distillkit.config.sections import (
    GuardsConfig,
    PricesConfig,
    ProbeConfig,
    SamplingConfig,
    Section,
    TeacherConfig,
    shares_of,
)
from distillkit.config.train_config import TrainConfig
from distillkit.data.named_teachers import named
from distillkit.errors import ConfigError
from distillkit.registry import Registry
from distillkit.roles.evaluator import Evaluator
from distillkit.roles.loss import Loss
from distillkit.roles.plugin import Plugin
from distillkit.roles.prompt_builder import PromptBuilder
from distillkit.roles.router import Router
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student


def _path_shorthand(value: object) -> object:
    return {"path": value} if isinstance(value, str | list) else value


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
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How completions are sampled.")
    loss: Loss = Field(description="What is trained.")
    train: TrainConfig = Field(default_factory=TrainConfig, description="The loop.")
    guards: GuardsConfig = Field(default_factory=GuardsConfig, description="Whether the student collapses.")
    probe: ProbeConfig = Field(default_factory=ProbeConfig, description="What is measured before anything is trained.")
    evaluators: tuple[Evaluator, ...] = Field((), description="What is measured of progress, on held-out rows.")
    sinks: tuple[Sink, ...] = Field((), description="Where metrics and events also go.")
    prices: PricesConfig | None = Field(None, description="What tokens cost you, for `distillkit check`.")

    def __init__(self, /, *, registry: Registry | None = None, **values: Any) -> None:  # noqa: ANN401 - fields of any type
        """Validate `values`; names are looked up in `registry` (default: everything installed).

        Raises:
            ConfigError: naming each key that is wrong.
        """
        registry, filled = registry or Registry.discover(), with_defaults(values)
        try:
            self.__pydantic_validator__.validate_python(filled, self_instance=self, context={"registry": registry})
        except ValidationError as error:
            problems = with_fitting_answers(option_problems(error, RunConfig), filled, registry)
            raise ConfigProblemsError(problems) from error

    @field_validator("log_path")
    @classmethod
    def _names_no_home(cls, log_path: str) -> str:
        if log_path.startswith("~"):  # a folder of this name would be made, which `rm -r` is then told to remove
            raise ValueError("~ is not replaced, write the whole path")
        return log_path

    @model_validator(mode="after")
    def _check_routes(self) -> Self:
        names = [teacher.teacher.name for teacher in self.teachers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"teachers: two have the route value {twice[0]!r}; give each teacher a `route_value` of its own"
            )
        shares_of(self.teachers)
        require_routes(self.data.format, names, self.router)
        for section, teacher in zip(self.teachers, named([each.teacher for each in self.teachers]), strict=True):
            section.scorer.bind(teacher)
        for key, plugins in self._lists_of_plugins():
            chosen = [plugin.name for plugin in plugins]
            again = sorted({name for name in chosen if chosen.count(name) > 1})
            if again:
                raise ValueError(f"{key}: {again[0]!r} stands there twice; their results could not be kept apart")
        if self.evaluators and not self.data.holds_out:
            raise ValueError(
                "evaluators: need held-out rows; set data.eval_path (or data.held_out_rows: 64), or evaluators to []"
            )
        return self

    def _lists_of_plugins(self) -> Iterator[tuple[str, Sequence[Plugin]]]:
        yield "evaluators", self.evaluators
        yield "sinks", self.sinks
        yield "train.weightings", self.train.weightings

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """What it shows of itself in a notebook or a log; `dump` gives all of it."""
        yield "name", self.name
        yield "data", self.data.path if self.data.source is None else self.data.source.name
        yield "student", _in_short(self.student)
        yield "teachers", [f"{teacher.scorer.name} {teacher.model}" for teacher in self.teachers]
        yield "log_path", self.log_path.replace("{name}", self.name)

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


def _in_short(plugin: Plugin) -> str:
    """A plugin's name, and its model if it has one."""
    return " ".join([plugin.name, *(str(part) for part in [getattr(plugin, "model", None)] if part)])


def _role_in(annotation: object) -> str:
    return next((model.role for model in models_in(annotation) if issubclass(model, Plugin)), "")
