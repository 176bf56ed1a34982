"""A completion as the event stream that the SDK reads, or as it should not be."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from distillkit_builtin.fireworks.loopback.faults import (
    CutStream,
    Effect,
    FewerLogprobs,
    MissingLogprobs,
    NullLogprob,
    WrongIds,
)
from distillkit_builtin.fireworks.loopback.messages import as_bytes


@dataclass(frozen=True, slots=True)
class Row:
    """The logprob of one token; the law that sampled it, where that is known."""

    token: str
    token_id: int
    logprob: float | None
    sampling_logprob: float | None

    def as_json(self) -> JsonValue:
        """As it is sent."""
        row: dict[str, JsonValue] = {"token": self.token, "token_id": self.token_id, "logprob": self.logprob}
        return row if self.sampling_logprob is None else {**row, "sampling_logprob": self.sampling_logprob}


@dataclass(frozen=True, slots=True)
class Completion:
    """What is sent back."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    """With the prompt's first, if it is echoed."""
    echoed: bool
    rows: tuple[Row, ...] | None
    """One an id; None if no logprobs were asked for."""
    text: str
    finish_reason: str
    named_prompt: tuple[int, ...] | None = None
    """What the service says the prompt was, where it says so."""
    cut: bool = False

    def misbehaving(self, effect: Effect | None) -> "Completion":
        """With what was ordered to be wrong with it."""
        match effect:
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
                return replace(self, ids=(*wrong, *self.ids[len(wrong) :]))
            case CutStream():
                return replace(self, cut=True)
        return self


def as_stream(completion: Completion, name: str) -> bytes:
    """Server-sent events: the rows in two frames, then what ends the stream."""
    rows = completion.rows
    half = len(completion.ids) // 2
    frames: list[Mapping[str, JsonValue]] = []
    for text, start, end in ((completion.text, 0, half), ("", half, len(completion.ids))):
        choice = as_choice(text, None)
        if rows is not None:
            choice["logprobs"] = {"content": [row.as_json() for row in rows[start:end]]}
        frames.append({"choices": [choice]})
    if completion.cut:
        return _events(frames[:1], name)
    old = len(completion.prompt)
    new = len(completion.ids) - (old if completion.echoed else 0)
    raw: dict[str, JsonValue] = {"completion_token_ids": list(completion.ids)}
    if completion.named_prompt is not None:
        raw["prompt_token_ids"] = list(completion.named_prompt)
    frames.append(
        {
            "choices": [{**as_choice("", completion.finish_reason), "raw_output": raw}],
            "usage": {
                "prompt_tokens": old,
                "completion_tokens": new,
                "total_tokens": old + new,
            },
            "perf_metrics": {"prefill-queue-duration": "0.001", "num-concurrent-requests": "1"},
        }
    )
    return _events(frames, name) + b"data: [DONE]\n\n"


def as_choice(text: str, finish_reason: str | None) -> dict[str, JsonValue]:
    """The part of a frame that every choice has."""
    return {"index": 0, "text": text, "finish_reason": finish_reason}


def _events(frames: Iterable[Mapping[str, JsonValue]], name: str) -> bytes:
    return b"".join(b"data: " + as_bytes({"id": name, **frame}) + b"\n\n" for frame in frames)
