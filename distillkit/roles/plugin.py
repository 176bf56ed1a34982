"""What all roles have in common: a plugin is a frozen pydantic model whose fields are its options.

The engine constructs it (no I/O), `check`s it (reads tokenizers, keys and capabilities; loads no weights, creates
nothing, costs nothing), `open`s it, uses it and `close`s it. What it holds while it is open are private attributes. An
exception from any role but a Sink ends the run.
"""

import inspect
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from distillkit.arrays import Array
from distillkit.context import RunContext


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a plugin found out about the run before anything is loaded; `distillkit check` prints it."""

    notes: tuple[str, ...] = ()
    """One line each: what will be loaded, created or reused."""
    memory_bytes: int | None = None
    """What the plugin expects to hold at its peak, where it knows."""
    missing: str | None = None
    """What is not installed and must be before the run, as one line with the pip command; None: nothing."""


class PluginBuilder(Protocol):
    """What turns a plugin's name and options into the plugin; a `Registry` is one."""

    def build(self, role: str, choice: object) -> "Plugin":
        """The plugin of `role` that `choice` (a name, or options with a `name`) describes."""
        ...


class Plugin(BaseModel, ABC):
    """What all roles have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    role: ClassVar[str] = ""
    name: ClassVar[str] = ""
    """How a config chooses the plugin; unique in its role."""
    volatile: ClassVar[frozenset[str]] = frozenset()
    """Options that a resumed run may have otherwise, since no number depends on them by more than rounding."""
    moved: ClassVar[Mapping[str, str]] = {}
    """Options that have another place now: the old key, and the new one with dots, as `timeouts.request`. Whoever
    writes the old key is told the new one."""
    writes: ClassVar[frozenset[str]] = frozenset()
    """Names of the files and folders that it writes in the run's directory: `--overwrite` removes these, and leaves
    alone what nobody writes."""

    def check(self, run: RunContext) -> CheckReport | None:
        """Find out whether this plugin can run. Raise `InputError` if the user has to change something."""

    def fingerprint(self) -> Mapping[str, str]:
        """What the numbers come from besides the options, as far as that is known after `check`, by what it is.

        Such as `{"weights": "<digest>"}`: a run is resumed only with the same values, of names that both times were
        given. Cheap; called in a worker thread, before `open`.
        """
        return {}

    async def open(self, run: RunContext) -> None:
        """Load or connect. Whatever is made here belongs to this plugin, or to `run.share`."""

    async def close(self) -> None:
        """Let go of what `open` made; called once, also after an error."""

    def state(self) -> Mapping[str, JsonValue]:
        """What a checkpoint must keep of this plugin, as JSON."""
        return {}

    def tensors(self) -> Mapping[str, Array]:
        """What a checkpoint must keep of this plugin, as named arrays."""
        return {}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """Take back what `state` and `tensors` gave, after `open`.

        Sampler, Scorer, Loss and Student are also asked in the middle of a run that goes back (`guards.action:
        rollback`); both are empty then where they had nothing to keep at the checkpoint.
        """

    @classmethod
    def is_complete(cls) -> bool:
        """Whether this class can be chosen by name: it has one, and implements its role."""
        return bool(cls.name) and bool(cls.role) and not inspect.isabstract(cls)

    @classmethod
    def describe(cls) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        """In a config, a field annotated with a role takes a name, options with a `name`, or an instance."""
        if "role" not in cls.__dict__:
            return handler(source)
        return core_schema.with_info_plain_validator_function(
            cls._resolve, serialization=core_schema.plain_serializer_function_ser_schema(cls._dump)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Leave a mark where a role stands, which `distillkit config schema` replaces by the known plugins."""
        return {"x-distillkit-role": cls.role} if "role" in cls.__dict__ else handler(schema)

    @classmethod
    def _resolve(cls, value: object, info: ValidationInfo) -> "Plugin":
        if isinstance(value, cls):
            return value
        if isinstance(value, Plugin) or (inspect.isclass(value) and issubclass(value, Plugin)):
            raise ValueError(f"wants an instance of {cls.__name__}, not {value!r}")
        builder = (info.context or {}).get("registry")
        if builder is None:
            raise ValueError("a plugin is chosen by name in a RunConfig only; pass an instance here")
        return cast(PluginBuilder, builder).build(cls.role, value)

    @staticmethod
    def _dump(plugin: "Plugin") -> dict[str, JsonValue]:
        return {"name": plugin.name, **plugin.model_dump(mode="json")}
