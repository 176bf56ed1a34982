"""The same prompts completed by a run's student as it started and as it is, with the same seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from pydantic import JsonValue

from distillkit.arrays import token_ids
from distillkit.config.run_config import RunConfig
from distillkit.data.render import render_side
from distillkit.errors import InputError, RowError
from distillkit.frozen import FrozenDict
from distillkit.loop.unless_broken import unless_broken
from distillkit.preflight.compatibility import plugins_of
from distillkit.preflight.overlong_prompts import reason
from distillkit.preflight.run_rows import read_rows
from distillkit.probe.open_student import StudentAlone, opened_student
from distillkit.records import Rollout
from distillkit.registry import Registry
from distillkit.run_directory.saved_run import SavedWeights
from distillkit.seeds import derive_seed
from distillkit.types import Message, Messages, SampleKey, SampleRequest

PURPOSE = "eval"
"""Part of the seeds: held-out rows are completed as the run's evaluations completed them."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    key: SampleKey
    place: str
    """Where it comes from, for people: `heldout.jsonl:3`."""
    text: str
    """The last message."""
    prompt_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class BeforeAndAfter:
    """One question and both completions; None where one failed."""

    question: Question
    before: Rollout | None
    after: Rollout | None


def asked(alone: StudentAlone, texts: Sequence[str]) -> list[Question]:
    """Questions that a user typed: each is the only message. Raises InputError for one that leaves no room."""
    return [
        _question(alone, SampleKey(f"question: {text}", 0, 0), "question", (Message("user", text),)) for text in texts
    ]


def rows_asked(config: RunConfig, registry: Registry, alone: StudentAlone, count: int) -> list[Question]:
    """The first held-out rows, or the first rows where none are held out. Reads the data; raises InputError."""
    rows = read_rows(config, plugins_of(config, registry))
    part = rows.held_out or rows.train
    found = []
    for row in islice(part.rows.rows(), count):
        _, chat = part.pipeline.chat(row)
        key = SampleKey(row.row_id, 0, 0)
        found.append(_question(alone, key, row.place, chat.student, chat.template_options))
    return found


def _question(
    alone: StudentAlone, key: SampleKey, place: str, messages: Messages, options: Mapping[str, JsonValue] = FrozenDict()
) -> Question:
    (ids,) = render_side(alone.side, [messages], options)
    if isinstance(ids, RowError):
        raise InputError(f"{place}: {ids}") from ids
    needed, longest = len(ids) + alone.sampling.max_tokens, alone.side.context_length
    if longest is not None and needed > longest:
        raise InputError(
            f"{place}: {len(ids)} prompt tokens plus sampling.max_completion_tokens={alone.sampling.max_tokens} is "
            f"{needed}, more than the {longest} that the student reads{reason(alone.side)}"
        )
    return Question(key, place, messages[-1].content, ids)


async def completed(
    alone: StudentAlone,
    trained: StudentAlone,
    registry: Registry,
    weights: SavedWeights,
    questions: Sequence[Question],
    say: Callable[[str], None] = lambda doing: None,
) -> list[BeforeAndAfter]:
    """Both completions of each question; `trained` is who starts from `weights` that are an export.

    Raises RunFailedError if no completion came.
    """
    seed = alone.config.seed
    requests = [
        SampleRequest(
            question.key,
            token_ids(question.prompt_ids),
            derive_seed(seed, PURPOSE, question.key.row_id),
            alone.sampling,
        )
        for question in questions
    ]

    async def sampled(student: StudentAlone, doing: str) -> dict[SampleKey, Rollout]:
        say(f"sampling, {doing} ...")
        return await unless_broken(student.completions(requests), student.config.student)

    async with opened_student(alone, registry):
        before = await sampled(alone, "as it started")
        if not weights.exported:
            await alone.load(weights)
            after = await sampled(alone, f"after step {weights.step}")
    if weights.exported:
        async with opened_student(trained, registry):
            after = await sampled(trained, f"after step {weights.step}")
    return [BeforeAndAfter(each, before.get(each.key), after.get(each.key)) for each in questions]
