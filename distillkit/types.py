"""What a completion is requested with: rows, teachers, routes, prompts, requests (what comes of them: `records`).

Each value is frozen, with all that it holds, and carries its own identity, so that nothing is ever joined by position
in a list. Token ids are int64, logprobs float32 in natural log; `P` is a prompt's length in tokens, `R` a response's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from pydantic import JsonValue

from distillkit.arrays import INT64, IntArray, freeze_arrays, token_ids
from distillkit.data.teacher_names import shown_names, slugs
from distillkit.frozen import FrozenDict, Value, freeze_fields


@dataclass(frozen=True, slots=True)
class Message(Value):
    """One chat turn."""

    role: str
    """`system`, `developer`, `user`, `assistant` or `tool`."""
    content: str
    """The turn's text."""
    extra: Mapping[str, JsonValue] = field(default_factory=FrozenDict)
    """The other keys of the row's message (`name`, `tool_calls`, ...); the arguments of tool calls are objects."""

    def __post_init__(self) -> None:
        """Hold a read-only copy of `extra`."""
        if type(self.extra) is not FrozenDict:  # as nearly all are: empty
            freeze_fields(self, "extra")

    def as_dict(self) -> dict[str, JsonValue]:
        """The turn as chat templates read it."""
        return {"role": self.role, "content": self.content, **self.extra}


Messages = tuple[Message, ...]
"""A chat, as `messages` of a row has it."""


@dataclass(frozen=True, slots=True, eq=False)
class Row(Value):
    """One row of a dataset, in one epoch."""

    row_id: str
    """Its number in its file and a hash of its content, such as `12-9f86d08188`; where a dataset has several files,
    with the file: `part-1.jsonl:12-9f86d08188`."""
    place: str
    """Where it is, for messages, such as `data/train.jsonl:12`."""
    messages: Messages
    """The messages that the student is prompted with."""
    fields: Mapping[str, JsonValue]
    """The whole row as its source holds it, unknown fields too; over it what `data.format` makes of that."""
    epoch: int = 0
    """The pass over the dataset, counted from 0."""
    mapped: frozenset[str] = frozenset()
    """The columns whose use `data.format` decides, such as those that its templates read."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        if type(self.messages) is not tuple:
            object.__setattr__(self, "messages", tuple(self.messages))
        if type(self.fields) is not FrozenDict:  # as they are that JSON held
            freeze_fields(self, "fields")

    @property
    def expected_answer(self) -> str | None:
        """The row's `expected_answer` as text, for evaluators; None where the row has none."""
        answer = self.fields.get("expected_answer")
        return None if answer is None else str(answer)


@dataclass(frozen=True, slots=True)
class Teacher(Value):
    """A teacher as routers and prompt builders see it."""

    name: str
    """Its `route_value`, or its model where that is unset. Unique in a run."""
    model: str
    """As its scorer understands it: a directory, a name on a hub, a server's name for it."""
    weight: float = 1.0
    """For losses of several teachers a row."""
    messages_key: str = "teacher_messages"
    """The row field with this teacher's privileged prompt."""
    missing_messages: Literal["student", "error"] = "student"
    """What a row without that field means: scored under the student's messages, or an error."""
    tokenizer_model: str | None = None
    """Source of the teacher's tokenizer; None: the model."""
    chat_template_kwargs: Mapping[str, JsonValue] | None = None
    """Options for its chat template; None: the student's."""
    shown: str = field(default="", compare=False)
    """How people read it: its `route_value`, or the last part of its model (`Qwen3-1.7B`), more where two would be
    called the same."""
    slug: str = field(default="", compare=False)
    """`shown` as metrics have it (`teacher_route/<slug>/reverse_kl`), with a hash where that would be ambiguous."""

    def __post_init__(self) -> None:
        """Hold read-only copies; without names it is called as a run's only teacher would be."""
        freeze_fields(self, "chat_template_kwargs")
        if not self.shown:
            object.__setattr__(self, "shown", shown_names([self.name], [self.model])[0])
        if not self.slug:
            object.__setattr__(self, "slug", slugs([self.shown], [self.name])[0])


@dataclass(frozen=True, slots=True)
class Route(Value):
    """Which teachers score a row: one (routed MOPD), or several, as one mixture of probabilities by their weights."""

    weights: Mapping[str, float]
    """Teacher name to weight, in the order in which they are named in metrics and tables."""

    def __post_init__(self) -> None:
        """Hold a read-only copy of `weights`."""
        freeze_fields(self, "weights")

    @classmethod
    @lru_cache  # the same for all rows of a teacher
    def to(cls, teacher: str) -> "Route":
        """The route to one teacher."""
        return cls({teacher: 1.0})

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the teachers that score the row."""
        return tuple(self.weights)

    @property
    def label(self) -> str:
        """The route's name in metrics and tables: the teachers' names, joined by `+`."""
        return "+".join(self.weights)


@dataclass(frozen=True, slots=True, eq=False)
class ChatPrompts(Value):
    """What a PromptBuilder makes of a row: the messages that each side reads."""

    student: Messages
    """The messages that the student is prompted with."""
    teachers: Mapping[str, Messages]
    """Teacher name to messages, one entry for each teacher of the route."""
    fallbacks: frozenset[str] = frozenset()
    """The teachers that read the student's messages because the row has none for them; counted and reported."""
    template_options: Mapping[str, JsonValue] = field(default_factory=FrozenDict)
    """The row's own options for the chat template of every side (`tools`, ...), laid over those of the config."""
    unused: frozenset[str] = frozenset()
    """Fields of the row that belong to prompts elsewhere and are in none of these; counted and reported."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        object.__setattr__(self, "teachers", FrozenDict({name: tuple(each) for name, each in self.teachers.items()}))
        if type(self.student) is not tuple:
            object.__setattr__(self, "student", tuple(self.student))
        if type(self.fallbacks) is not frozenset:
            object.__setattr__(self, "fallbacks", frozenset(self.fallbacks))
        if type(self.template_options) is not FrozenDict:  # as nearly all are: empty
            freeze_fields(self, "template_options")
        if type(self.unused) is not frozenset:
            object.__setattr__(self, "unused", frozenset(self.unused))


@dataclass(frozen=True, slots=True, eq=False)
class RoutedRow(Value):
    """A row, which teachers score it, and what each side reads."""

    row: Row
    route: Route
    """Which teachers score it."""
    chat: ChatPrompts
    """The messages of student and teachers."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompts(Value):
    """A row's prompts as token ids. The teacher's may differ from the student's in length and content."""

    row: Row
    route: Route
    student: IntArray
    """[P] what the student continues."""
    teachers: Mapping[str, IntArray]
    """Teacher name to [P'] token ids."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_arrays(self, student=INT64)
        object.__setattr__(self, "teachers", FrozenDict({name: token_ids(ids) for name, ids in self.teachers.items()}))


@dataclass(frozen=True, slots=True, order=True)
class SampleKey(Value):
    """The identity of one completion: the row, the epoch, and which of the row's completions."""

    row_id: str
    """`Row.row_id`."""
    epoch: int
    """`Row.epoch`."""
    sample: int
    """Which of the row's completions, counted from 0."""

    def __str__(self) -> str:
        """As messages name it."""
        return f"row {self.row_id}, epoch {self.epoch}, sample {self.sample}"


@dataclass(frozen=True, slots=True)
class SamplingParams(Value):
    """How completions are sampled. Logprobs are always at temperature 1, before top-p and top-k."""

    max_tokens: int
    """A completion is cut here."""
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """Keeps the most probable tokens of this total probability; 1 keeps all."""
    top_k: int = 0
    """Keeps so many of the most probable tokens; 0 keeps all."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion, looked for in its text without special tokens; the tokens of one are kept."""
    stop_ids: tuple[int, ...] = ()
    """Ids that end a completion, and are its last token then. What a run's samplers get holds the model's own too, as
    far as its files say, so that every backend ends at the same ones."""

    @property
    def is_untouched(self) -> bool:
        """Whether completions are sampled from exactly the distribution whose logprobs they carry."""
        return self.temperature == 1.0 and self.top_p == 1.0 and self.top_k == 0


@dataclass(frozen=True, slots=True, eq=False)
class SampleRequest(Value):
    """One completion to sample."""

    key: SampleKey
    prompt_ids: IntArray
    """[P] what the completion continues."""
    seed: int
    """Derived from the run's seed and `key`, so that order and concurrency do not change the data."""
    params: SamplingParams
    wanted: Mapping[str, int] = field(default_factory=FrozenDict)
    """What the sampler is to give with the completion, by capability with the amount (`topk: 8`, `entropy: 1`)."""

    def __post_init__(self) -> None:
        """Hold read-only copies."""
        freeze_arrays(self, prompt_ids=INT64)
        if type(self.wanted) is not FrozenDict:  # as nearly all are: empty
            freeze_fields(self, "wanted")
