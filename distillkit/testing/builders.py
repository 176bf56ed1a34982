"""Values for tests, ready made: say what matters, the rest has defaults."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import Array, FloatArray, logprob_array, token_ids
from distillkit.context import RunContext, SharedObjects
from distillkit.data.parse_row import parse_row
from distillkit.data.row_index import hash_of, row_id
from distillkit.errors import PluginError
from distillkit.events import Notice
from distillkit.raw_row import RawRow, RowFile
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.roles.plugin import Plugin
from distillkit.run_plan import Plan
from distillkit.seeds import derive_seed
from distillkit.testing.byte_tokenizer import ByteTokenizer
from distillkit.types import Prompts, Route, Row, SampleKey, SampleRequest, SamplingParams, Teacher

TEST_PLAN = Plan(
    rows=8,
    steps=2,
    optimizer_steps=2,
    eval_rows=0,
    evaluations=0,
    completions=8,
    step_rows=4,
    step_completions=4,
    longest_prompt=64,
    longest_teacher_prompt=64,
    new_tokens=16,
    sample_tokens=128,
    score_tokens=512,
    train_tokens=512,
    eval_sample_tokens=0,
    eval_score_tokens=0,
)
"""Of a small run: what `make_context` says of the work."""
MADE_UP = RowFile("made up", unit="line")


def require(condition: object, plugin: Plugin, message: str) -> None:
    """Raise PluginError naming the plugin's class unless `condition` holds."""
    if not condition:
        raise PluginError(f"{type(plugin).__module__}.{type(plugin).__qualname__} ({plugin.role}): {message}")


def make_row(content: str = "What is the sky?", *, line: int = 1, **fields: JsonValue) -> Row:
    """A row with one user message, and further fields as in a dataset; its id is made of `line`."""
    raw = RawRow.of(MADE_UP, line, {"messages": [{"role": "user", "content": content}], **fields})
    return parse_row(raw, row_id(MADE_UP, line, hash_of(raw.text)))


def make_teacher(name: str = "teacher", **fields: object) -> Teacher:
    """A teacher called `name`."""
    known: Mapping[str, object] = {"name": name, "model": f"model-of-{name}", **fields}
    return Teacher(**known)  # type: ignore[arg-type]  # the dataclass checks the names


def make_context(
    user: str = "test", *, seed: int = 0, notify: Callable[[str], None] = print, teachers: Sequence[Teacher] = ()
) -> RunContext:
    """A run that writes nowhere, of a student that reads bytes; `notify` gets what the plugin says to the user."""

    def tell(notice: Notice) -> None:
        notify(notice.message)

    return RunContext(
        user, "test", seed, None, tell, SharedObjects(), TEST_PLAN, tuple(teachers), tokenizer=ByteTokenizer()
    )


def make_request(row: Row | None = None, *, sample: int = 0, max_tokens: int = 16, **params: float) -> SampleRequest:
    """One completion to sample for `row`, in the tokens of `ByteTokenizer`."""
    row = row or make_row()
    prompt = token_ids(ByteTokenizer().render(row.messages, {}))
    options = SamplingParams(max_tokens, **params)  # type: ignore[arg-type]  # the dataclass checks the names
    return SampleRequest(SampleKey(row.row_id, row.epoch, sample), prompt, derive_seed(0, row.row_id, sample), options)


def make_rollout(
    ids: Sequence[int],
    logprobs: Sequence[float] | FloatArray | None = None,
    *,
    row: Row | None = None,
    sample: int = 0,
    mask: Sequence[bool] | None = None,
    policy_version: int = 0,
) -> Rollout:
    """A completion of `ids`; without `logprobs` each token has -1. Masked tokens get NaN, as the engine requires."""
    values = np.full(len(ids), -1.0) if logprobs is None else np.array(logprobs, dtype=np.float64)
    keep = None if mask is None else np.array(mask, dtype=np.bool_)
    if keep is not None:
        values = np.where(keep, values, np.nan)
    text = ByteTokenizer().decode([index for index in ids if index < ByteTokenizer.size])
    request = make_request(row, sample=sample, max_tokens=max(len(ids), 1))
    return Rollout(request, policy_version, token_ids(ids), logprob_array(values), "stop", text, keep)


def make_scored(
    rollout: Rollout,
    teacher_logprobs: Sequence[float] | FloatArray,
    *,
    teacher: str = "teacher",
    row: Row | None = None,
    arrays: Mapping[str, Array] | None = None,
) -> ScoredRollout:
    """`rollout` scored by one teacher, under the student's prompt; `arrays` is what `Score.arrays` holds."""
    prompt = rollout.request.prompt_ids
    request = ScoreRequest(rollout, teacher, prompt)
    score = Score(request, logprob_array(teacher_logprobs), rollout.token_ids, arrays=arrays or {})
    prompts = Prompts(row or make_row(), Route.to(teacher), prompt, {teacher: prompt})
    return ScoredRollout(rollout, prompts, {teacher: score})
