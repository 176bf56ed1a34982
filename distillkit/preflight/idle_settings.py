"""Numbers of a config that do nothing as rows, routes and vocabulary are, in words."""

from collections.abc import Iterator

from distillkit.config.run_config import RunConfig
from distillkit.data.counted import counted
from distillkit.data.row_pipeline import RowPipeline
from distillkit.loop.wanted import Wanted
from distillkit.tokenizer import Tokenizer


def idle_settings(config: RunConfig, pipeline: RowPipeline, rows: int, tokenizer: Tokenizer) -> Iterator[str]:
    """A sentence on each; `rows` were counted by `pipeline`."""
    yield from _weights(config, pipeline)
    asked = {count for count in (pipeline.rows_of[teacher.name] for teacher in pipeline.routed_to) if count}
    one_route = len(pipeline.mixtures) <= 1 and asked == {rows}
    if config.train.normalization == "route_mean" and one_route:
        yield "train.normalization=route_mean does what token_mean does: all rows have the same route"
    wanted = Wanted.by(config)
    most = max(wanted.of_scorers.get("topk", 0), wanted.of_sampler.get("topk", 0))
    if most > (ids := len(tokenizer.vocabulary())):
        yield (
            f"loss and weightings ask for the {most:,} most probable tokens, and there are {counted(ids, 'token')}: "
            "what is more is padding; take less"
        )


def _weights(config: RunConfig, pipeline: RowPipeline) -> Iterator[str]:
    for teacher in pipeline.teachers:
        if teacher.weight == 1 or (pipeline.mixtures and teacher in pipeline.routed_to):
            continue
        why = (
            f"router {config.router.name!r} sends no row to several teachers; `share` says how many rows it has, and "
            "router: all makes a mixture"
            if teacher in pipeline.routed_to
            else f"loss {config.loss.name!r} asks it besides, and no row is routed to it"
        )
        yield f"teacher {teacher.name!r}: its weight of {teacher.weight:g} does nothing: {why}"
