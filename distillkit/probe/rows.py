"""Which rows are probed: in training order, and so that every teacher has some."""

from collections import Counter

from distillkit.loop.batches import RowBatches
from distillkit.loop.outcomes import WindowRequests
from distillkit.loop.wanted import Wanted
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.seeds import derive_seed
from distillkit.types import Prompts, Row, SampleKey, SampleRequest, SamplingParams

NOTHING_MORE = Wanted()
"""The sampled tokens alone."""


def spread_rows(prepared: PreparedRun, count: int) -> list[Prompts]:
    """The prompts of at most `count` rows of the run, in training order, spread evenly over the teachers.

    Each teacher gets an equal share of them, the first that it scores, as far as it has so many; the rest are the
    first rows whatever their teacher. With more teachers than rows some get none. Reads the data file: call it in a
    thread.
    """
    rows, teachers = prepared.pipeline.rows_of, [name for name, found in prepared.pipeline.rows_of.items() if found]
    share = max(1, count // len(teachers))
    wanted = {name: min(share, rows[name]) for name in teachers}
    chosen: dict[int, Row] = {}
    others: dict[int, Row] = {}
    have: Counter[str] = Counter()
    batches = RowBatches(prepared)
    for place, row in zip(range(len(prepared.dataset)), batches.rows(), strict=False):
        route, _ = prepared.pipeline.chat(row)
        if len(chosen) < count and any(have[name] < wanted.get(name, 0) for name in route.teachers):
            chosen[place] = row
            have.update(route.teachers)
        elif len(others) < count:
            others[place] = row
        enough = all(have[name] >= needed for name, needed in wanted.items())
        if len(chosen) + len(others) >= count and (enough or len(chosen) == count):
            break
    first_others = list(others.items())[: count - len(chosen)]
    return prepared.render([row for _, row in sorted([*chosen.items(), *first_others])])


def sample_requests(
    prepared: PreparedRun,
    prompts: list[Prompts],
    purpose: str,
    params: SamplingParams | None = None,
    each: int = 1,
    wanted: Wanted = NOTHING_MORE,
) -> tuple[SampleRequest, ...]:
    """`each` completions a row, with seeds that no step and no evaluation has; `params`: the run's own by default."""
    params = params or prepared.sampling
    return tuple(
        SampleRequest(
            SampleKey(row_prompts.row.row_id, row_prompts.row.epoch, sample),
            row_prompts.student,
            derive_seed(prepared.config.seed, purpose, row_prompts.row.row_id, sample),
            params,
            wanted.of_sampler,
        )
        for row_prompts in prompts
        for sample in range(each)
    )


def window_requests(
    prepared: PreparedRun, prompts: list[Prompts], purpose: str, each: int = 1, wanted: Wanted = NOTHING_MORE
) -> WindowRequests:
    """What a `Scheduler` samples and scores, for `each` completions a row; seeds as in `sample_requests`."""
    by_row = {(row_prompts.row.row_id, row_prompts.row.epoch): row_prompts for row_prompts in prompts}
    samples = sample_requests(prepared, prompts, purpose, each=each, wanted=wanted)
    return WindowRequests(by_row, samples, wanted=wanted)
