"""The options of a config one by one, and which of them a run may have otherwise when it goes on."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from distillkit.config.run_config import RunConfig, plugins_in

MAY_CHANGE = frozenset(
    {
        "name",
        "log_path",
        "plugins",
        "sinks",
        "evaluators",
        "guards",
        "probe",
        "prices",
        "data.path",  # its content is compared
        "data.source",
        "data.eval_path",  # as well
        "data.eval_source",
        "data.format",  # the mapping that it comes to is compared
        "data.max_eval_rows",
        "data.epochs",
        "sampling.template_date",  # what templates make of it is compared
        "train.max_steps",
        "train.eval_every",
        "train.save_every",
        "train.save_every_minutes",
        "train.keep_last",
        "train.sample_every",
        "train.samples_per_route",
        "train.samples_topk",
        "train.route_gradients_every",
        "train.max_bad_steps",
        "train.max_failed_fraction",
        "train.warn_logprob_mismatch",
    }
)
"""Keys of a config that say how long a run goes on, how it is watched, and where it writes."""


def settings_of(config: RunConfig) -> dict[str, JsonValue]:
    """Every option that must stay, by its key."""
    volatile = {f"{key}.{option}" for key, _, plugin in plugins_in(config) for option in plugin.volatile}
    return {key: value for key, value in _leaves(config.dump()) if not _is_in(key, MAY_CHANGE | volatile)}


def at_default(config: RunConfig) -> list[str]:
    """The keys of those options that are as their class has them: a version without them does the same."""
    defaults = frozenset(_defaults_in(config))
    return [key for key in settings_of(config) if _is_in(key, defaults)]


def _is_in(key: str, parts: frozenset[str]) -> bool:
    """Whether `key`, or a section that it is in, is one of `parts`."""
    return any(".".join(key.split(".")[:length]) in parts for length in range(1, key.count(".") + 2))


def _leaves(value: JsonValue, key: str = "") -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{key}.{place}")
    else:
        yield key, value


def _defaults_in(value: object, key: str = "") -> Iterator[str]:
    """The keys of fields that hold what they hold by default; of sections and plugins, their own fields' keys."""
    if isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _defaults_in(inner, f"{key}.{place}")
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            part, inner = f"{key}.{name}" if key else name, getattr(value, name)
            if isinstance(inner, BaseModel):
                yield from _defaults_in(inner, part)
            elif _has_default(field) and inner == field.get_default(call_default_factory=True):
                yield part
            else:
                yield from _defaults_in(inner, part)


def _has_default(field: FieldInfo) -> bool:
    """Whether a field's default is known by itself, and not only beside the other fields."""
    return not field.is_required() and not getattr(field, "default_factory_takes_validated_data", False)
