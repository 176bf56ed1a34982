"""What counts as another run when one is resumed, and what does not: options, rows and code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question
from pydantic import Field

from distillkit import Registry, RunConfig, run
from distillkit.preflight.prepared_run import prepare_run
from distillkit.run_directory.identity import changes, identity_of
from distillkit.testing import FakeScorer, FakeStudent
from engine.run_directory.identities import listed, started

Make = Callable[..., RunConfig]


class Aged(FakeStudent):
    """As an older version had it."""

    name: ClassVar[str] = "aged"


class Renewed(Aged):
    """The same, with one option more."""

    patience: int = Field(3, description="What the older version did not have.")


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


def test_a_run_that_goes_on_by_force_says_what_changed(fake_config: Make) -> None:
    folder = started(fake_config(train={"max_steps": 1}))
    run(fake_config(seed=5, train={"max_steps": 2}), resume=True, force=True)
    assert "going on by force, as another run than" in (folder / "run.log").read_text()
    assert "was written by: seed was 0, is 5" in (folder / "run.log").read_text()


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
