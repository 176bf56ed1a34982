"""Which models make another run: by content and template, wherever they lie."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import RunConfig, run
from distillkit.context import RunContext
from distillkit.errors import RowError
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.testing.byte_tokenizer import ByteTokenizer
from distillkit.tokenizer import Tokenizer
from distillkit.types import Message
from engine.run_directory.identities import listed, started

Make = Callable[..., RunConfig]


class Known(FakeScorer):
    """Knows what is behind it."""

    name: ClassVar[str] = "known"
    _behind: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, **behind: str) -> "Known":
        scorer = cls(likes="abc")
        scorer._behind = behind
        return scorer

    def fingerprint(self) -> Mapping[str, str]:
        return self._behind


def test_a_model_that_changed_behind_its_name_is_another_run(fake_config: Make) -> None:
    def config(steps: int, **behind: str) -> RunConfig:
        teachers = [{"model": "t", "scorer": Known.of(**behind)}]
        return fake_config(teachers=teachers, train={"max_steps": steps})

    started(config(1, weights="0123456789abcdef", served="llama at /a"))
    assert listed(config(2, weights="f123456789abcdef", served="llama at /b")) == [
        "the weights of teacher 't' changed",
        'the served of teacher \'t\' was "llama at /a", is "llama at /b"',
    ]
    assert run(config(2, served="llama at /a"), resume=True).steps == 2  # what is not known now is not compared
    assert run(config(3, weights="0123456789abcdef"), resume=True).steps == 3


class Templated(ByteTokenizer):
    """With a part of its template that only some chats come to."""

    def __init__(self, source: str, tools: str, *, refuses: bool = False) -> None:
        super().__init__()
        self.source, self.tools, self.refuses = source, tools, refuses

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        if self.refuses and options.get("tools"):
            raise RowError("messages", f"the chat template of {self.source!r} refuses them")
        return [*super().render(messages, {}), *(self.encode(self.tools) if options.get("tools") else [])]


class WithTemplate(FakeStudent):
    """Reads by a tokenizer that it was given."""

    name: ClassVar[str] = "templated"
    _reads: Templated | None = PrivateAttr(None)

    @classmethod
    def by(cls, tokenizer: Templated) -> "WithTemplate":
        student = cls(learning_rate=30.0)
        student._reads = tokenizer
        return student

    def tokenizer(self, run: RunContext) -> Tokenizer:
        assert self._reads is not None
        return self._reads


def test_what_a_template_makes_of_tools_is_part_of_what_a_run_is_and_where_it_lies_is_not(fake_config: Make) -> None:
    def config(steps: int, *of: str, refuses: bool = False) -> RunConfig:
        student = WithTemplate.by(Templated(*of, refuses=refuses))
        return fake_config(student=student, train={"max_steps": steps})

    started(config(1, "/a", "with tools"))
    assert run(config(2, "/elsewhere", "with tools"), resume=True).steps == 2
    assert "the tokenizer or chat template of student changed" in listed(config(3, "/a", "with other tools"))
    run(config(2, "/a", "", refuses=True), overwrite=True)
    assert run(config(3, "/elsewhere", "", refuses=True), resume=True).steps == 3


def test_a_model_that_lies_elsewhere_is_the_same_one_if_its_content_is_known(fake_config: Make) -> None:
    def config(steps: int, model: str, tokenizer: str, name: str | None = "easy", **behind: str) -> RunConfig:
        teacher = {"model": model, "tokenizer_model": tokenizer, "route_value": name, "scorer": Known.of(**behind)}
        return fake_config(teachers=[teacher], train={"max_steps": steps})

    started(config(1, "/a/model", "/a/tokenizer", weights="0123456789abcdef"))
    assert run(config(2, "/b/model", "/b/tokenizer", weights="0123456789abcdef"), resume=True).steps == 2
    assert listed(config(3, "/b/model", "/b/tokenizer", weights="f123456789abcdef")) == [
        "the weights of teacher 'easy' changed"
    ]
    moved = 'teachers.0.model was "/b/model", is "/c/model"'
    assert listed(config(3, "/c/model", "/b/tokenizer", revision="1")) == [moved]  # nothing says that it is the same
    unnamed = config(3, "/b/model", "/b/tokenizer", name=None, weights="0123456789abcdef")
    assert listed(unnamed) == ['teachers.0.route_value was "easy", is null']


def test_a_teacher_that_is_called_as_its_model_keeps_its_name_when_that_is_moved(fake_config: Make) -> None:
    def config(steps: int, model: str, name: str | None) -> RunConfig:
        teacher = {"model": model, "route_value": name, "scorer": Known.of(weights="0123456789abcdef")}
        return fake_config(teachers=[teacher], train={"max_steps": steps})

    started(config(1, "/a/model", None))
    assert listed(config(2, "/b/model", None)) == [
        'teachers.0.model was "/a/model", is "/b/model"; if it is that model, which lies elsewhere now, keep its name: '
        "teachers.0.route_value=/a/model"
    ]
    assert run(config(2, "/b/model", "/a/model"), resume=True).steps == 2
