"""What counts as another run when one is resumed, and what does not."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question
from pydantic import Field, JsonValue, PrivateAttr

from distillkit import Registry, RunConfig, run
from distillkit.context import RunContext
from distillkit.errors import InputError, RowError
from distillkit.preflight.prepared_run import prepare_run
from distillkit.run_directory.directory import run_directory
from distillkit.run_directory.identity import changes, identity_of
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.testing.byte_tokenizer import ByteTokenizer
from distillkit.tokenizer import Tokenizer
from distillkit.types import Message

Make = Callable[..., RunConfig]


class Aged(FakeStudent):
    """As an older version had it."""

    name: ClassVar[str] = "aged"


class Renewed(Aged):
    """The same, with one option more."""

    patience: int = Field(3, description="What the older version did not have.")


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


def started(config: RunConfig) -> Path:
    """A run that came to its end, and may go on with more steps; its directory."""
    run(config)
    return run_directory(config)


def listed(config: RunConfig) -> list[str]:
    """What a resume is refused for."""
    with pytest.raises(InputError, match="was written by another run") as caught:
        run(config, resume=True)
    return [line.strip() for line in str(caught.value).splitlines()[1:-1]]


def test_an_option_that_the_other_version_does_not_have_counts_only_if_it_is_not_at_its_default(
    fake_config: Make,
) -> None:
    def config(student: FakeStudent, steps: int) -> RunConfig:
        return fake_config(student=student, train={"max_steps": steps})

    started(config(Aged(learning_rate=2.0), 1))
    assert listed(config(Renewed(learning_rate=2.0, patience=4), 2)) == ["student.patience was not there, is 4"]
    assert run(config(Renewed(learning_rate=2.0), 2), resume=True).steps == 2
    assert run(config(Aged(learning_rate=2.0), 3), resume=True).steps == 3  # back to the older version
    run(config(Renewed(learning_rate=2.0, patience=4), 4), resume=True, force=True)
    assert listed(config(Aged(learning_rate=2.0), 5)) == ["student.patience was 4, is not there"]


def test_options_of_sections_and_of_nested_values_have_their_defaults_too(fake_config: Make) -> None:
    config = fake_config(sampling={"chat_template_kwargs": {"enable_thinking": False}})
    now = identity_of(prepare_run(config, Registry.discover(), print))
    for name in ("train.num_substeps", "teachers.0.weight", "loss.scale", "sampling.top_k"):
        without = {key: value for key, value in now.items() if key != name}
        assert list(changes(without, now)) == list(changes(now, without)) == []
    thinking = "sampling.chat_template_kwargs.enable_thinking"
    without = {key: value for key, value in now.items() if key != thinking}
    assert list(changes(without, now)) == [f"{thinking} was not there, is false"]


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


def test_a_run_that_goes_on_by_force_says_what_changed(fake_config: Make) -> None:
    folder = started(fake_config(train={"max_steps": 1}))
    run(fake_config(seed=5, train={"max_steps": 2}), resume=True, force=True)
    assert "going on by force, as another run than" in (folder / "run.log").read_text()
    assert "was written by: seed was 0, is 5" in (folder / "run.log").read_text()


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


OTHER = "the held-out rows are others than before: evaluations after step 1 cannot be compared with earlier ones"


@pytest.mark.parametrize("change", ["content", "number"])
def test_other_held_out_rows_are_allowed_and_no_number_from_before_stands_beside_theirs(
    fake_config: Make, jsonl: Callable[..., str], change: str
) -> None:
    rows = [question("held out"), question("and another")]

    def config(steps: int, **data: Any) -> RunConfig:
        return fake_config(data={"eval_path": jsonl(rows, "eval.jsonl"), **data}, train={"max_steps": steps})

    folder = started(config(1))
    data = {"max_eval_rows": 1} if change == "number" else {"eval_path": jsonl([question("third")], "other.jsonl")}
    result = run(config(2, **data), resume=True)
    assert OTHER in (folder / "run.log").read_text()
    assert list(result.eval) == ["after"]
    assert "before" not in run(config(3, **data), resume=True).eval
    assert (folder / "run.log").read_text().count("the held-out rows are others") == 1


def test_the_same_held_out_rows_elsewhere_are_no_change(fake_config: Make, jsonl: Callable[..., str]) -> None:
    rows = [question("held out")]
    folder = started(fake_config(data={"eval_path": jsonl(rows, "here.jsonl")}, train={"max_steps": 1}))
    data = {"eval_path": jsonl(rows, "there.jsonl"), "max_eval_rows": 5}
    result = run(fake_config(data=data, train={"max_steps": 2}), resume=True)
    assert list(result.eval) == ["before", "after"]
    assert "the held-out rows" not in (folder / "run.log").read_text()


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


LOSS = """
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

class Mine(ImportanceSampling):
    name = "mine"
"""
SINK = """
from distillkit.testing import ListSink

class Told(ListSink):
    name = "told"
"""


def test_a_resume_says_that_code_is_another_which_numbers_come_from(fake_config: Make, tmp_path: Path) -> None:
    def config(steps: int, loss: str, sink: str) -> RunConfig:
        (tmp_path / "mine.py").write_text(loss)
        (tmp_path / "told.py").write_text(sink)
        registry = Registry.discover()
        for cls in (FakeStudent, FakeScorer):
            registry.add(cls)
        scripts = [str(tmp_path / "mine.py"), str(tmp_path / "told.py")]
        for script in scripts:
            registry.add_script(Path(script))
        values = fake_config(train={"max_steps": steps}).dump()
        return RunConfig(registry=registry, **{**values, "plugins": scripts, "loss": "mine", "sinks": ["told"]})

    def go_on(config: RunConfig) -> int:
        return run(config, plugins=[FakeStudent, FakeScorer], resume=True).steps

    log = run(config(1, LOSS, SINK), plugins=[FakeStudent, FakeScorer]).run_dir / "run.log"
    assert go_on(config(2, LOSS, SINK + "# that only watches")) == 2
    assert "other code" not in log.read_text()
    assert go_on(config(3, LOSS + "# by another formula", SINK)) == 3
    assert "mine.py is not what it was when" in log.read_text()


QUESTIONS = [{"question": f"Why {number}?", "answer": "So.", "level": number} for number in range(4)]


def test_a_mapping_that_is_recognized_and_the_same_written_out_are_the_same_run(
    fake_config: Make, jsonl: Callable[..., str]
) -> None:
    path = jsonl(QUESTIONS, "questions.jsonl")

    def config(steps: int, **data: Any) -> RunConfig:
        return fake_config(data={"path": path, **data}, train={"max_steps": steps})

    started(config(1))
    run(config(2, format={"expected_answer": "{{answer}}", "prompt": "{{ question }}"}), resume=True)
    assert listed(config(3, format={"prompt": "{{ answer }}"})) == [
        'the mapping of data.format was {"prompt": "{{ question }}", "expected_answer": "{{ answer }}"}, '
        'is {"prompt": "{{ answer }}"}'
    ]
    assert listed(config(3, format={"system": "Be brief."})) == [
        'the mapping of data.format was {}, is {"system": "Be brief."}'
    ]


def test_other_filters_and_another_order_are_another_run(fake_config: Make, jsonl: Callable[..., str]) -> None:
    path = jsonl(QUESTIONS, "questions.jsonl")

    def config(steps: int, **data: Any) -> RunConfig:
        data = {"path": path, "filter": "level < 3", "sort": "level", **data}
        return fake_config(data=data, train={"max_steps": steps, "prompt_groups_per_step": 1})

    started(config(1))
    run(config(2, sort={"by": "level"}), resume=True)
    assert any(line.startswith("data.filter was") for line in listed(config(3, filter="level < 4")))
    assert listed(config(3, sort={"by": "level", "descending": True})) == [
        "data.sort.descending was false, is true",
    ]
