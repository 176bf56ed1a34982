"""What is found out before a run: rows, prompts, the plan, and tokenizers that differ."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from conftest import question

from distillkit import Registry, RunConfig
from distillkit.context import RunContext
from distillkit.errors import DataError, InputError
from distillkit.preflight import prepared_run
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent
from engine.preflight.prepared import TWO, inspect

Make = Callable[..., RunConfig]
MINE = [{"role": "user", "content": "privileged"}]


def test_every_row_with_a_problem_is_named(fake_config: Make, jsonl: Callable[..., str]) -> None:
    rows = [
        question("fine", teacher="math"),
        question("typo", teacher="mth"),
        question("absent"),
        question("no messages of its own", teacher="prose"),
        question("fine", teacher="prose", prose_messages=MINE),
    ]
    path = jsonl(rows)
    with pytest.raises(DataError) as caught:
        inspect(fake_config(data={"path": path}, teachers=TWO))
    assert str(caught.value).splitlines() == [
        f"{path}:2: teacher: no teacher has the route value 'mth'; did you mean 'math'? Known: math, prose",
        f"{path}:3: teacher: is missing; the router needs it. Known: math, prose",
        f"{path}:4: prose_messages: is missing, and teacher 'prose' needs it; add it, or set "
        "missing_teacher_messages: student to score such rows under `messages`",
    ]


def test_held_out_rows_are_validated_too(fake_config: Make, jsonl: Callable[..., str]) -> None:
    bad = jsonl([question("x"), b"{"], "heldout.jsonl")
    with pytest.raises(DataError, match=r"heldout\.jsonl:2: line: is not JSON"):
        inspect(fake_config(data={"eval_path": bad}))


def test_fallbacks_are_counted_and_said(fake_config: Make, jsonl: Callable[..., str]) -> None:
    rows = [question("a", teacher_messages=MINE), question("b"), question("c", teacher_messages=[])]
    prepared = inspect(fake_config(data={"path": jsonl(rows)}))
    assert prepared.notes[0] == "teacher 't': 2 of 3 rows have no teacher_messages; scored under messages"


@pytest.mark.parametrize(("student", "teacher", "who"), [(60, 4096, "the student"), (4096, 60, "teacher 't'")])
def test_prompts_that_leave_no_room_are_found_for_both_sides(
    fake_config: Make, jsonl: Callable[..., str], student: int, teacher: int, who: str
) -> None:
    path = jsonl([question("short"), question("long " * 20)])
    config = fake_config(
        data={"path": path},
        student={"name": "fake", "context": student},
        teachers=[{"model": "t", "scorer": {"name": "fake", "context": teacher}}],
    )
    with pytest.raises(DataError) as caught:
        inspect(config)
    assert f"{path}:2: " in str(caught.value)
    assert f"plus sampling.max_completion_tokens=12 is 131, more than the 60 that {who} reads" in str(caught.value)
    assert ":1:" not in str(caught.value)


def test_a_context_that_is_not_known_refuses_nothing(fake_config: Make) -> None:
    inspect(fake_config(student={"name": "fake", "context": None}))


def test_the_plan_counts_steps_and_tokens(fake_config: Make, jsonl: Callable[..., str]) -> None:
    rows = [question("abcd") for _ in range(5)]
    prompt = len(ByteTokenizer().render([], {})) + len("user\nabcd") + 3
    plan = inspect(fake_config(data={"path": jsonl(rows), "epochs": 2}, train={"num_substeps": 3})).plan
    assert (plan.rows, plan.steps, plan.optimizer_steps, plan.completions) == (10, 5, 10, 20)
    assert (plan.longest_prompt, plan.sample_tokens) == (prompt, 20 * 12)
    assert plan.score_tokens == plan.train_tokens == 20 * (12 + prompt)
    shorter = inspect(fake_config(data={"path": jsonl(rows), "epochs": 2}, train={"max_steps": 2})).plan
    assert (shorter.rows, shorter.steps, shorter.completions) == (4, 2, 8)


def test_the_plan_bounds_a_run_that_ends_early_and_its_evaluations(
    fake_config: Make, jsonl: Callable[..., str]
) -> None:
    rows = [question("x" * length) for length in (1, 1, 1, 90)]
    held_out = jsonl([question("abc"), question("abc")], "heldout.jsonl")
    config = {"data": {"path": jsonl(rows), "eval_path": held_out}, "train": {"max_steps": 1, "eval_every": 1}}
    overhead = len(ByteTokenizer().render([], {})) + len("user\n") + 3
    plan = inspect(fake_config(**config)).plan
    assert plan.train_tokens == 2 * (2 * 12 + 93 + 4 * overhead)  # no more than all rows there are
    assert plan.evaluations == 2
    assert plan.eval_sample_tokens == 2 * 2 * 12
    assert plan.eval_score_tokens == 2 * 2 * (12 + overhead + 3)
    longer = {**config, "train": {"prompt_groups_per_step": 1, "eval_every": 1}}
    assert inspect(fake_config(**longer)).plan.evaluations == 5
    assert inspect(fake_config(**longer, evaluators=[])).plan.evaluations == 0


def test_off_policy_sampling_and_idle_teachers_are_noted(fake_config: Make, jsonl: Callable[..., str]) -> None:
    config = fake_config(
        data={"path": jsonl([question("x", teacher="math")])}, teachers=TWO, sampling={"temperature": 0.7}
    )
    notes = "\n".join(inspect(config).notes)
    assert "teacher 'prose': no row is routed to it" in notes
    assert "the ratio's denominator is not the distribution that sampled" in notes


def test_a_router_that_invents_a_teacher_is_caught(fake_config: Make) -> None:
    from distillkit.types import Route
    from engine.plugin_modules import FirstRouter

    class Inventive(FirstRouter):
        """Routes to nobody."""

        def route(self, row: Any, teachers: Any) -> Route:
            return Route.to("nobody")

    with pytest.raises(DataError, match="router 'first' returned teacher 'nobody'; Known: t"):
        inspect(fake_config(router=Inventive()))


def test_a_teacher_with_another_tokenizer_is_refused_by_name(fake_config: Make) -> None:
    class OtherBytes(ByteTokenizer):
        def vocabulary(self) -> Mapping[str, int]:
            return {**super().vocabulary(), "<0x41>": 66}

    class OtherScorer(FakeScorer):
        """Another tokenizer."""

        def tokenizer(self, run: Any) -> ByteTokenizer:
            return OtherBytes()

    with pytest.raises(InputError, match=r"teacher 't' cannot score the student's token ids: token '<0x41>' is id 65"):
        inspect(fake_config(teachers=[{"model": "t", "scorer": OtherScorer()}]))


def test_template_options_of_a_teacher_win_over_the_students(fake_config: Make, jsonl: Callable[..., str]) -> None:
    config = fake_config(
        sampling={"chat_template_kwargs": {"enable_thinking": False}},
        teachers=[
            {"model": "t", "scorer": "fake"},
            {"model": "u", "scorer": "fake", "chat_template_kwargs": {"enable_thinking": True}},
        ],
        router={"name": "field"},
        data={"path": jsonl([question("x", teacher="u")])},
    )
    renderer = inspect(config).renderer
    assert renderer.student.template_options == {"enable_thinking": False}
    assert renderer.teachers["t"].template_options == {"enable_thinking": False}
    assert renderer.teachers["u"].template_options == {"enable_thinking": True}


def test_nothing_is_opened_or_scored_during_the_inspection(fake_config: Make) -> None:
    scorer = FakeScorer()
    inspect(fake_config(teachers=[{"model": "t", "scorer": scorer}], student=FakeStudent()))
    assert scorer.seen == []


@pytest.mark.parametrize("backwards", [False, True])
def test_all_plugins_declare_before_any_is_checked(
    fake_config: Make, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    calls: list[str] = []

    def wanted(run: RunContext) -> list[str]:
        return run.share("wanted", list[str])

    class Declaring(FakeScorer):
        """Reads in its check what the student wants."""

        def declare(self, run: RunContext) -> None:
            calls.append("declare")

        def check(self, run: RunContext) -> None:
            calls.append("check")
            assert wanted(run) == ["the student's"]

    class DeclaringStudent(FakeStudent):
        """Wants something."""

        def declare(self, run: RunContext) -> None:
            calls.append("declare")
            wanted(run).append("the student's")

        def check(self, run: RunContext) -> None:
            calls.append("check")

    in_order = prepared_run.plugins_of

    def ordered(config: RunConfig, registry: Registry) -> Any:
        plugins = in_order(config, registry)
        return replace(plugins, by_key=dict(reversed(plugins.by_key.items()))) if backwards else plugins

    monkeypatch.setattr(prepared_run, "plugins_of", ordered)
    inspect(fake_config(student=DeclaringStudent(), teachers=[{"model": "t", "scorer": Declaring()}]))
    assert calls == ["declare", "declare", "check", "check"]
