"""What is fuzzed: each target takes any bytes, and lets out what no user and no run may meet.

`make fuzz` feeds them with atheris, guided by coverage; `tests/hostile` feeds them with hypothesis. Each allows only
the exceptions that its reader promises, and asks of what it accepts that it be usable.
"""

import asyncio
import functools
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
from helpers.rows import rows_of

from distillkit import Registry
from distillkit.arrays import token_ids
from distillkit.config.load import load_config
from distillkit.data.parse_row import parse_columns, parse_row
from distillkit.data.row_format.expressions import RowFilter, SortKey
from distillkit.data.row_format.recognition import ReadAs, columns_of, recognized
from distillkit.data.row_format.row_format import RowFormat
from distillkit.errors import AlignmentError, InputError
from distillkit.raw_row import RawRow, RowFile
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.run_directory.directory import run_directory
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent, make_request, make_rollout, make_teacher
from distillkit.types import Row
from distillkit_builtin.datasets.files import FilesDataset
from distillkit_builtin.fireworks.completions import sample_completion, score_completion
from distillkit_builtin.http.completions import Completions
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery, UnprovedError, parse_scores
from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens
from distillkit_builtin.http.live_teacher import as_score
from distillkit_builtin.http.models import find_model, served_models
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.prompts import MessagesPrompts
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.response import read_response
from distillkit_builtin.remote.results import AttemptError, RefusedError
from distillkit_builtin.routers import FieldRouter
from distillkit_builtin.vllm.token_completions import TokenCompletions, weight_versions
from fuzz import hf_inputs

LONGEST_MESSAGE = 50_000
"""Characters of an error: the kinds of problems that are begun within 30,000, and what is around them."""
PROMPT, RESPONSE = [1, 2], [3, 4]
SUFFIXES = (".yaml", ".toml", ".json")
NO_KEY = Key.read(None)
LINES = RowFile("rows.jsonl", unit="line")
MAPPINGS: Sequence[Mapping[str, Any]] = (
    {
        "prompt": "{{ question }}{% for turn in turns %}{{ turn.role }}{% endfor %}",
        "system": "{{ system | default(none) }}",
        "teacher": "{{ teacher }}",
        "teacher_prompt": {"a": "{{ answer | tojson }} {{ answer }}", "b": "{{ turns }}"},
        "teacher_system": "{{ row['my column'] | upper }}",
        "expected_answer": "{{ answer[0] }}",
        "tools": "{{ cell | from_json }}",
        "fields": {"n": "{{ n * 3 + 1 }}", "power": "{{ n ** n * question }}"},
    },
    {"messages": "{{ turns | from_sharegpt | without_answer }}", "teacher_messages": "{{ turns }}"},
    {"messages": "{{ cell | from_json | without_answer }}", "chat_template_kwargs": "{{ row }}"},
)
FILTERS = [RowFilter(text).keeps for text in ("n > 2", "question in answer", "not turns", "n and n < cell")]
SORTS = [SortKey(text).of for text in ("n", "question | length", "turns[0].content", "n / (answer | length)")]
TEACHERS = (make_teacher("a"), make_teacher("b", messages_key="b_messages", missing_messages="error"))


@functools.cache
def folder() -> Path:
    """Where this process writes what it reads."""
    return Path(tempfile.mkdtemp(prefix="distillkit-fuzz-"))


@functools.cache
def registry() -> Registry:
    found = Registry.discover()
    found.add(FakeStudent)
    found.add(FakeScorer)
    return found


def require_short(error: Exception) -> None:
    """A message that is too long to be read, or cannot be printed, is a defect too."""
    said = str(error)
    assert len(said) <= LONGEST_MESSAGE, f"a message of {len(said)} characters: {said[:200]}"
    said.encode("utf-8", errors="backslashreplace")


def dataset(data: bytes, name: str = "rows.jsonl") -> None:
    """A file of rows, which are routed and given their prompts."""
    path = folder() / name
    path.write_bytes(data)
    try:
        FilesDataset(path=str(path)).notes()
        rows = rows_of(path)
        rows.validate(routed)
        for row in rows.rows():
            json.dumps([row.fields, *(message.as_dict() for message in row.messages)], allow_nan=False).encode()
            str(row.expected_answer).encode()
            [message.content.encode() for message in row.messages]
    except InputError as error:
        require_short(error)


def routed(row: Row) -> None:
    MessagesPrompts().build(row, FieldRouter().route(row, TEACHERS), TEACHERS)


def row_format(data: bytes) -> None:
    """Rows a line each, by the shape that they have and by mappings, filters and sort keys that are given."""
    rows = [RawRow(LINES, number, line) for number, line in enumerate(data.split(b"\n")[:50], start=1)]
    columns = [found for row in rows if isinstance(found := unless_refused(lambda: parse_columns(row)), dict)]  # noqa: B023 - called at once
    formats = [RowFormat.of(mapping, TEACHERS, "teacher") for mapping in MAPPINGS]
    found = unless_refused(lambda: recognized(columns, {}, "rows"))
    if isinstance(found, ReadAs):
        formats.append(RowFormat.of(found.mapping, TEACHERS, "teacher"))
        assert len(found.note(columns_of(columns)) or "") < LONGEST_MESSAGE
    for each in columns:
        for key in (*FILTERS, *SORTS):
            assert isinstance(unless_refused(lambda: key(each)), bool | float | str | None)  # noqa: B023
    for row in rows:
        for by in formats:
            made = unless_refused(lambda: parse_row(row, "1", by))  # noqa: B023
            if isinstance(made, Row):
                json.dumps([made.fields, *(message.as_dict() for message in made.messages)], allow_nan=False).encode()
                [message.content.encode() for message in made.messages]
                unless_refused(lambda: routed(made))  # noqa: B023


def unless_refused(work: Callable[[], object]) -> object:
    """What a step gives; None where it refuses its input in few words."""
    try:
        return work()
    except InputError as error:
        require_short(error)
        return None


def config(data: bytes) -> None:
    """The first byte chooses YAML, TOML or JSON; the first line holds overrides, the others are the file."""
    line, _, text = data[1:].partition(b"\n")
    path = folder() / f"config{SUFFIXES[(data or b'0')[0] % len(SUFFIXES)]}"
    path.write_bytes(text)
    overrides = [part for part in line.decode(errors="surrogateescape").split("\t") if part]
    try:
        found, _ = load_config([path], overrides, registry=registry())
    except InputError as error:
        require_short(error)
        return
    json.dumps(found.dump()).encode()
    assert ".." not in found.name
    assert "/" not in found.name
    assert run_directory(found.model_copy(update={"log_path": "runs/{name}"})).parent == Path("runs")


def body_of(data: bytes) -> Any:
    """A body as the remote backends read it; None where it is no JSON."""
    try:
        return read_response(httpx.Response(200, content=data), "http://a", 1.0, NO_KEY).value
    except AttemptError as error:
        require_short(error)
        return None


def scores(dialect: Dialect, data: bytes) -> None:
    """An answer of a teacher; what is accepted has possible logprobs of exactly the tokens that were sent."""
    answer = body_of(data)
    rollout = make_rollout(RESPONSE)
    for topk in (0, 2):
        query = ScoreQuery("m", token_ids(PROMPT), token_ids(RESPONSE), topk)
        try:
            dialect.parse(answer, query)
        except (AlignmentError, UnprovedError) as error:
            require_short(error)
        try:
            scored = parse_scores(dialect, answer, query, "this")
            require_possible(as_score(ScoreRequest(rollout, "t", token_ids(PROMPT)), scored))
        except AlignmentError as error:
            require_short(error)


def given_ids(data: bytes) -> None:
    """An answer of vLLM's token interface; what is accepted has possible logprobs of the ids that were asked for."""
    ids = np.array([[5, -1], [6, 7]])
    query = ScoreQuery("m", token_ids(PROMPT), token_ids(RESPONSE), at_ids=ids)
    try:
        scored = parse_scores(VllmTokens(), body_of(data), query, "this")
        score = as_score(ScoreRequest(make_rollout(RESPONSE), "t", token_ids(PROMPT), at_ids=ids), scored)
    except AlignmentError as error:
        require_short(error)
        return
    require_likely(score.logprobs.tolist())
    found = score.arrays["at_logprobs"]
    assert found.shape == ids.shape
    assert (found <= 0.01).all()  # NaN is not
    assert found[0, 1] == -np.inf


def require_possible(score: Score) -> None:
    assert score.echoed_ids is not None
    assert score.echoed_ids.tolist() == RESPONSE
    require_likely(score.logprobs.tolist())
    for name, array in score.arrays.items():
        assert array.shape == (len(RESPONSE), 2), name
        assert np.isfinite(array).all(), name


def require_likely(logprobs: Sequence[float]) -> None:
    assert all(math.isfinite(value) and value <= 0.01 for value in logprobs), logprobs


FORMS: Mapping[str, CompletionForm] = {
    "completion": Completions(),
    "token_completion": TokenCompletions(ByteTokenizer()),
}


def completion(form: CompletionForm, data: bytes) -> None:
    """An answer with a completion."""
    body = body_of(data)
    try:
        sampled = form.parse(body, make_request(), "m", 3)
        if isinstance(form, TokenCompletions):
            assert all(isinstance(version, str) for version in weight_versions(body, "it"))
    except AlignmentError as error:
        require_short(error)
        return
    require_sampled(sampled)


def require_sampled(sampled: Rollout | Failure) -> None:
    if isinstance(sampled, Failure):
        assert len(sampled.reason) < LONGEST_MESSAGE
        return
    require_likely(sampled.logprobs.tolist())
    assert (sampled.token_ids >= 0).all()
    sampled.text.encode()


def models(data: bytes) -> None:
    """The list of what a server serves."""
    try:
        found = find_model(served_models(body_of(data), "http://a"), "m", "http://a")
        assert found.max_model_len is None or found.max_model_len > 0
    except InputError as error:
        require_short(error)


def response(data: bytes) -> None:
    """A whole response: the first line is status and kind of call, the next ones headers, and then comes the body."""
    head, _, content = data.partition(b"\n\n")
    status, *lines = head.split(b"\n")
    headers = [tuple(line.split(b":", 1)) for line in lines if b":" in line]
    try:
        received = httpx.Response(200 + int.from_bytes(status[:2]) % 400, content=content, headers=headers)
        received.content  # noqa: B018 - what cannot be decompressed is handled by `Connection.send`
    except (httpx.DecodingError, ValueError):
        return
    for lenient in (False, True):
        try:
            read_response(received, "http://a", 1.0, NO_KEY, lenient=lenient)
        except (RefusedError, AttemptError) as error:
            require_short(error)
            require_harmless(str(error), getattr(error, "retry_after", None))


def require_harmless(message: str, waits: float | None) -> None:
    assert message.isprintable(), repr(message)
    assert waits is None or (math.isfinite(waits) and waits >= 0)


def fireworks(data: bytes) -> None:
    """A stream's choice, as the SDK puts it together and makes a completion of it; it checks little of that."""
    choice = body_of(data)
    if not isinstance(choice, dict):
        return
    sampler = SimpleNamespace(sample_with_prompt_tokens_result=functools.partial(_as_the_sdk_does, choice))
    endpoint: Any = SimpleNamespace(sampler=sampler)
    scored = ScoreRequest(make_rollout(RESPONSE), "t", token_ids(PROMPT))
    for ask in (
        functools.partial(sample_completion, endpoint, make_request(), 3, ByteTokenizer(), 1.0),
        functools.partial(score_completion, endpoint, scored, 1.0),
    ):
        try:
            outcome = asyncio.run(ask())
        except AlignmentError as error:
            require_short(error)
            continue
        if isinstance(outcome, Score):
            require_possible(outcome)
        else:
            require_sampled(outcome)


async def _as_the_sdk_does(choice: Any, prompt: list[int], *, echo: bool = False, **options: Any) -> Any:
    from fireworks.training.sdk.sampling import DeploymentSampler

    parse = functools.partial(DeploymentSampler._parse_completions_result, _SdkSampler())
    return SimpleNamespace(completions=parse({"choices": [choice]}, prompt, None, True, False, echo, False))


class _SdkSampler:
    """As much of the SDK's sampler as its parser asks for."""

    r3_store_id = None

    def __getattr__(self, name: str) -> Any:
        from fireworks.training.sdk.sampling import DeploymentSampler

        return getattr(DeploymentSampler, name)


FILES = ("rows.json", "rows.csv", "rows.tsv", "rows.parquet", "rows.jsonl.gz", "rows.jsonl.zst", "rows")
"""Of every reader, and one whose name says nothing."""
TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "dataset": dataset,
    "row_format": row_format,
    **{name: functools.partial(dataset, name=name) for name in FILES},
    "hf_address": hf_inputs.address,
    "saved_dataset": hf_inputs.saved,
    "config": config,
    "prompt_logprobs": functools.partial(scores, PromptLogprobs()),
    "echo": functools.partial(scores, Echo(max_tokens=1)),
    "sglang": functools.partial(scores, SGLang()),
    "vllm_tokens": given_ids,
    **{name: functools.partial(completion, form) for name, form in FORMS.items()},
    "models": models,
    "response": response,
    "fireworks": fireworks,
}
