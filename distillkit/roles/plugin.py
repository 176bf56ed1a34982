"""What all roles have in common: a plugin is a frozen pydantic model whose fields are its options.

A class derives from one role. One of several, such as a student that samples, sets the one that it is chosen for in its
body: `role: ClassVar[str] = "student"`.

The engine constructs it (no I/O), lets it `declare` what it wants of what plugins share, `check`s it (reads tokenizers,
keys and capabilities; loads no weights, creates nothing, costs nothing), `open`s it, uses it and `close`s it. What it
holds while it is open are private attributes. An exception from any role but a Sink ends the run.
"""

import inspect
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, JsonValue, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from distillkit.arrays import Array
from distillkit.context import RunContext
from distillkit.errors import PluginError
from distillkit.memory import MemoryReport
from distillkit.roles.number_options import NumberOptions


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a plugin found out about the run before anything is loaded; `distillkit check` prints it."""

    notes: tuple[str, ...] = ()
    """One line each: what will be loaded, created or reused."""
    missing: str | None = None
    """What is not installed and must be before the run, as one line with the pip command; None: nothing."""
    length_limit: str = ""
    """Why `context_length` is less than the model's own, and what to do, as a sentence or two: said where a prompt is
    too long for it. Empty: it is the model's own."""


PENDING_CLEANUP = "pending_cleanup"
"""A folder of the run's directory, for the records of `Plugin.leftovers`. It outlives a run that is replaced."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something outside of this machine that an earlier run made and has not cleaned up."""

    record: Path
    """The file in the run's `PENDING_CLEANUP` folder that says so; whoever removes the thing by hand removes it too."""
    description: str
    """A description of the thing and its location, for a message."""


class PluginBuilder(Protocol):
    """What turns a plugin's name and options into the plugin; a `Registry` is one."""

    def build(self, role: str, choice: object) -> "Plugin":
        """The plugin of `role` that `choice` (a name, or options with a `name`) describes."""
        ...


class Plugin(NumberOptions, ABC):
    """Base class of all roles."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    role: ClassVar[str] = ""
    """The role that a class is chosen for. A class of two roles (a student that samples) sets it in its body."""
    name: ClassVar[str] = ""
    """How a config chooses the plugin; unique in its role."""
    volatile: ClassVar[frozenset[str]] = frozenset()
    """Options that a resumed run may have otherwise, since no number depends on them by more than rounding."""
    moved: ClassVar[Mapping[str, str]] = {}
    """Options that were moved: the old key, and the new one with dots, as `timeouts.request`. The error for an old key
    names the new one."""
    gone: ClassVar[Mapping[str, str]] = {}
    """Options that there are no more: the old key, and what to do instead, as the error for it says."""
    writes: ClassVar[frozenset[str]] = frozenset()
    """Names of the files and folders that it writes in the run's directory: `--overwrite` removes these, and leaves
    alone what nobody writes."""

    libraries: ClassVar[frozenset[str]] = frozenset()
    """Distributions (`torch`, `httpx`) that it computes or connects with: `summary.json` has their versions."""

    @classmethod
    def leftovers(cls, run_dir: Path) -> Sequence[Leftover]:
        """What earlier runs in `run_dir` have outside of this machine, as far as a plugin of this class cleans it up.

        A plugin writes a record into the folder `PENDING_CLEANUP` before it requests something that costs money, and
        removes it when all of that is gone. `open` takes up what is left, or cleans it up. A run without a plugin that
        answers for a record does not begin in that directory. Raises `InputError` if a record cannot be read.
        """
        return ()

    def declare(self, run: RunContext) -> None:
        """Tell what the run's plugins share (`run.share`) what this one wants of it; no I/O, and nothing is verified.

        Called for every plugin before `check` is called for any: in `check` all of it is known, in whichever order.
        """

    def check(self, run: RunContext) -> CheckReport | None:
        """Find out whether this plugin can run. Raise `InputError` if the user has to change something."""

    def way_out(self, need: str, amount: int, given: int) -> str:
        """What a user may do where a run does not start for want of `amount` of the capability `need`, in a few words.

        `given`: how much of it there is; 0: it is not given at all. Asked of the plugin that needs it, of another
        option (`take support: teacher_topk`), and of the one that does not give it (`start vLLM with --max-logprobs
        32`). A loss is asked too where rows are routed to more `teachers` than it takes. Empty: nothing is known.
        """
        return ""

    def memory(self, run: RunContext) -> MemoryReport | None:
        """What this plugin will hold in memory on this machine, at most, and what there is; None: next to nothing.

        Called after `check`, with `run.plan`, and again of copies with other options, to find out what they would save.
        Where `run.planned_device` is set, that card takes the place of this machine's.
        """
        return None

    def fingerprint(self) -> Mapping[str, str]:
        """What the numbers come from besides the options, as far as that is known after `check`, by what it is.

        Such as `{"weights": "<digest>"}`: a run is resumed only with the same values, of names that both times were
        given. Cheap; called in a worker thread, before `open`.
        """
        return {}

    async def open(self, run: RunContext) -> None:
        """Load or connect. Whatever is made here belongs to this plugin, or to `run.share`."""

    def provenance(self) -> Mapping[str, JsonValue]:
        """What its options were resolved to, for `summary.json`: device, number format, sizes; server, model, version.

        Called once, after every plugin is open. Cheap, and without anything that names the host or holds a secret.
        """
        return {}

    async def close(self) -> None:
        """Release what `open` made; called once, also after an error."""

    def state(self) -> Mapping[str, JsonValue]:
        """What a checkpoint must keep of this plugin, as JSON."""
        return {}

    def tensors(self) -> Mapping[str, Array]:
        """What a checkpoint must keep of this plugin, as named arrays."""
        return {}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """Take back what `state` and `tensors` gave, after `open`."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Raise PluginError for a class of several roles that does not say which one, or with methods never awaited."""
        super().__pydantic_init_subclass__(**kwargs)
        roles = [base for base in cls.__mro__ if issubclass(base, Plugin) and base.is_role()]
        says = next(base for base in cls.__mro__ if "role" in vars(base))
        where = f"{cls.__module__}.{cls.__qualname__} is a {' and a '.join(role.__name__ for role in roles)}"
        if not all(issubclass(says, role) for role in roles):
            raise PluginError(
                f"{where}; set the one that it is chosen for in its body: `role: ClassVar[str] = {roles[0].role!r}`"
            )
        if roles and cls.role not in [role.role for role in roles]:
            raise PluginError(f"{where}, and its `role` is {cls.role!r}")
        for role in roles:
            cls._require_called_as(role)
        cls._require_called_as(Plugin)

    @classmethod
    def _require_called_as(cls, role: "type[Plugin]") -> None:
        """Raise PluginError for an `async def` where the engine awaits nothing: it would never run, without a word."""
        for name, method in vars(role).items():
            own = getattr(cls, name)
            if inspect.isfunction(method) and inspect.iscoroutinefunction(own) > inspect.iscoroutinefunction(method):
                yields = "AsyncIterator" in str(method.__annotations__.get("return"))
                fix = "give it a `yield` for each outcome" if yields else f"write `def {name}`"
                raise PluginError(
                    f"{cls.__module__}.{cls.__qualname__}: `async def {name}` is no {role.__name__}.{name}, which is "
                    f"called without await; {fix}"
                )

    @classmethod
    def is_role(cls) -> bool:
        """Whether this class is a role itself, which plugins derive from."""
        return "role" in vars(cls) and sum("role" in vars(base) for base in cls.__mro__) == 2  # the other is Plugin

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
        if not cls.is_role():
            return handler(source)
        return core_schema.with_info_plain_validator_function(
            cls._resolve, serialization=core_schema.plain_serializer_function_ser_schema(cls._dump)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Leave a mark where a role stands, which `distillkit config schema` replaces by the known plugins."""
        return {"x-distillkit-role": cls.role} if cls.is_role() else handler(schema)

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
