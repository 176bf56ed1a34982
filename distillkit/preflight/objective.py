"""What a run trains on, in a line: its loss, what that is divided by, how tokens are weighed, and who is asked."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from distillkit.config.run_config import RunConfig
from distillkit.data.row_pipeline import MOST_MIXTURES, RowPipeline
from distillkit.roles.plugin import Plugin


def objective(config: RunConfig, pipeline: RowPipeline) -> str:
    """`divergence (support: union, k: 20), token_mean; weightings: truncated; mixture: long 75%, short 25%`."""
    return "; ".join(_parts(config, pipeline))


def _parts(config: RunConfig, pipeline: RowPipeline) -> Iterator[str]:
    yield f"{_shown(config.loss)}, {config.train.normalization}"
    if config.train.weightings:
        yield f"weightings: {', '.join(map(_shown, config.train.weightings))}"
    shown = {teacher.name: teacher.shown for teacher in pipeline.teachers}
    if pipeline.mixtures:
        mixtures = [_mixture(dict(weights), shown) for weights in list(pipeline.mixtures)[:MOST_MIXTURES]]
        more = " or others" if len(pipeline.mixtures) > MOST_MIXTURES else ""
        yield f"mixture: {' or '.join(mixtures)}{more}"
    if references := config.loss.references():
        yield f"asked besides: {', '.join(shown[name] for name in references)}"


def _mixture(weights: Mapping[str, float], shown: Mapping[str, str]) -> str:
    total = sum(weights.values())
    return ", ".join(f"{shown[name]} {100 * weight / total:.3g}%" for name, weight in weights.items())


def _shown(plugin: Plugin) -> str:
    """A plugin's name, and those of its options that are not at their defaults."""
    options = plugin.model_dump(mode="json", exclude_defaults=True)
    return f"{plugin.name} ({_written(options)})" if options else plugin.name


def _written(options: Mapping[str, JsonValue]) -> str:
    return ", ".join(f"{name}: {_value(value)}" for name, value in options.items())


def _value(value: JsonValue) -> str:
    """As a config has it, where it is one value or a group of them."""
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return f"{{{_written(value)}}}"
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case float():
            return f"{value:g}"
        case _:
            return "null" if value is None else str(value)
