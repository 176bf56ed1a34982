"""Completions as the event stream that the SDK reads, or as one object; or as they should not be."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from distillkit_loopback.fireworks.faults import (
    BrokenStream,
    CutStream,
    Fault,
    FewerLogprobs,
    MissingLogprobs,
    NoFinishReason,
    NullLogprob,
    OtherFinish,
    StreamError,
    WrongIds,
)
from distillkit_loopback.transport.messages import as_bytes

PERFORMANCE: Mapping[str, JsonValue] = {"prefill-queue-duration": "0.001", "num-concurrent-requests": "1"}
"""In seconds; what the SDK's concurrency controller reads of a deployment."""


@dataclass(frozen=True, slots=True)
class Row:
    """The logprob of one token; that of the distribution which sampled it, where known; the top-k, if requested."""

    token: str
    token_id: int
    logprob: float | None
    sampling_logprob: float | None = None
    topk: tuple["Row", ...] = ()
    """In descending order of logprob; empty if not requested."""

    def as_json(self) -> dict[str, JsonValue]:
        """The row as JSON, with its top-k rows inside."""
        row: dict[str, JsonValue] = {"token": self.token, "token_id": self.token_id, "logprob": self.logprob}
        if self.sampling_logprob is not None:
            row["sampling_logprob"] = self.sampling_logprob
        if self.topk:
            row["top_logprobs"] = [other.as_json() for other in self.topk]
        return row


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion to be sent as a stream of server-sent events."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    """Those of the prompt that are echoed, then those that were sampled."""
    echoed: int
    """How many of the prompt's last ids are in `ids`."""
    rows: tuple[Row, ...] | None
    """One an id; None if no logprobs were requested."""
    text: str
    finish_reason: str | None
    named_prompt: tuple[int, ...] | None = None
    """The prompt ids that the service reports; None: it reports none."""
    ending: bytes | None = None
    """What its stream ends with half-way; None: it is whole."""

    def distorted(self, fault: Fault | None) -> "Completion":
        """The completion with what is wrong with it by `fault`."""
        match fault:
            case MissingLogprobs():
                return replace(self, rows=None)
            case FewerLogprobs() if self.rows:
                return replace(self, rows=self.rows[:-1])
            case NullLogprob(at) if self.rows:
                rows = list(self.rows)
                rows[at] = replace(rows[at], logprob=None, sampling_logprob=None)
                return replace(self, rows=tuple(rows))
            case WrongIds(at):
                wrong = list(self.prompt)
                wrong[at] += 1
                if not self.echoed:
                    return replace(self, named_prompt=tuple(wrong))
                return replace(self, ids=(*wrong[-self.echoed :], *self.ids[self.echoed :]))
            case NoFinishReason():
                whole = len(self.ids) - (len(self.ids) - self.echoed + 1) // 2
                rows_left = None if self.rows is None else self.rows[:whole]
                return replace(self, ids=self.ids[:whole], rows=rows_left, finish_reason=None)
            case OtherFinish(reason):
                return replace(self, finish_reason=reason)
            case CutStream():
                return replace(self, ending=b"")
            case BrokenStream(frame):
                return replace(self, ending=frame)
            case StreamError():
                return replace(self, ending=_error(fault))
        return self

    @property
    def raw_output(self) -> JsonValue:
        """The ids, which the SDK requests and cannot do without."""
        raw: dict[str, JsonValue] = {"completion_token_ids": list(self.ids)}
        return raw if self.named_prompt is None else {**raw, "prompt_token_ids": list(self.named_prompt)}


def as_stream(completions: Sequence[Completion], name: str) -> bytes:
    """Server-sent events: the rows of each completion in two frames, then what ends it; usage with the last one."""
    frames: list[dict[str, JsonValue]] = []
    for index, completion in enumerate(completions):
        half = len(completion.ids) // 2
        for text, rows in ((completion.text, slice(0, half)), ("", slice(half, None))):
            frames.append({"choices": [_choice(index, completion, text, rows)]})
        if completion.ending is not None:
            return _events(frames[:-1], name) + completion.ending
        ending = {"finish_reason": completion.finish_reason, "raw_output": completion.raw_output}
        frames.append({"choices": [{"index": index, "text": "", **ending}]})
    frames[-1] |= {"usage": _usage(completions), "perf_metrics": dict(PERFORMANCE)}
    return _events(frames, name) + b"data: [DONE]\n\n"


def as_object(completions: Sequence[Completion], name: str) -> JsonValue:
    """All of it at once, for a request without `stream`."""
    choices: list[JsonValue] = [
        {
            **_choice(index, completion, completion.text, slice(None)),
            "finish_reason": completion.finish_reason,
            "raw_output": completion.raw_output,
        }
        for index, completion in enumerate(completions)
    ]
    return {"id": name, "choices": choices, "usage": _usage(completions)}


def _error(fault: StreamError) -> bytes:
    said = {"status": fault.status, "code": fault.code, "type": fault.kind, "message": fault.message}
    body: JsonValue = {"error": {key: value for key, value in said.items() if value is not None}}
    return (b"event: error\n" if fault.as_event else b"") + b"data: " + as_bytes(body) + b"\n\n"


def _choice(index: int, completion: Completion, text: str, rows: slice) -> dict[str, JsonValue]:
    choice: dict[str, JsonValue] = {"index": index, "text": text, "finish_reason": None}
    if completion.rows is not None:
        choice["logprobs"] = {"content": [row.as_json() for row in completion.rows[rows]]}
    return choice


def _usage(completions: Sequence[Completion]) -> JsonValue:
    old = len(completions[0].prompt)
    new = sum(len(completion.ids) - completion.echoed for completion in completions)
    return {"prompt_tokens": old, "completion_tokens": new, "total_tokens": old + new}


def _events(frames: Iterable[Mapping[str, JsonValue]], name: str) -> bytes:
    return b"".join(b"data: " + as_bytes({"id": name, **frame}) + b"\n\n" for frame in frames)
