from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from conftest import question

import distillkit
from distillkit import EvalRequests, EvalResult, Evaluator, Registry, RoutedRow, RunConfig, Sampler, Teacher
from distillkit.errors import PluginError
from distillkit.preflight.prepared_run import prepare_run
from distillkit.run_plan import Plan
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent, check_plugin

Make = Callable[..., RunConfig]


class Writing(FakeScorer, Sampler):
    """A teacher that writes, too."""

    role: ClassVar[str] = "scorer"
    name: ClassVar[str] = "writing"

    async def sync(self, weights: Any) -> None:
        """It stays as it is."""

    sample = FakeStudent.sample


class Asking(Evaluator):
    """Says that it asks for five texts of each teacher, and lets the student score three a time."""

    name: ClassVar[str] = "asking"

    def requests(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher], evaluations: int) -> EvalRequests:
        return EvalRequests({teacher.name: 5 for teacher in teachers}, 3 * evaluations)

    async def evaluate(self, context: Any) -> EvalResult:
        return EvalResult({})


class AskingToo(Asking):
    """As much again."""

    name: ClassVar[str] = "asking_too"


class Secretly(Asking):
    """Asks for more than it says."""

    def requests(self, *given: Any) -> EvalRequests:
        return EvalRequests()

    async def evaluate(self, context: Any) -> EvalResult:
        await context.sample_teacher("teacher")
        return EvalResult({})


def plan_of(config: RunConfig) -> Plan:
    return prepare_run(config, Registry.discover(), lambda notice: None).plan


@pytest.fixture
def teachers() -> list[dict[str, Any]]:
    return [
        {"route_value": "t", "model": "t", "scorer": Writing()},
        {"route_value": "mute", "model": "m", "scorer": FakeScorer()},
    ]


def test_what_evaluators_ask_for_is_in_the_plan_but_of_teachers_that_cannot_write(
    fake_config: Make, jsonl: Callable[..., str], teachers: list[dict[str, Any]]
) -> None:
    held_out = {"eval_path": jsonl([question("abc", teacher="t")] * 2, "heldout.jsonl")}
    rows = {"path": jsonl([question("abc", teacher="t"), question("abc", teacher="mute")])}
    config = fake_config(
        data={**rows, **held_out}, teachers=teachers, evaluators=[Asking(), AskingToo()], router="field"
    )
    plan = plan_of(config)
    prompt = len(ByteTokenizer().render([], {})) + len("user\nabc") + 3
    assert plan.evaluations == 2
    assert plan.eval_teacher_tokens == 2 * 5 * plan.new_tokens
    assert plan.eval_student_score_tokens == 2 * 3 * 2 * (plan.new_tokens + prompt)
    assert plan.eval_sample_tokens == 2 * 2 * plan.new_tokens


def test_an_evaluator_that_asks_for_more_than_it_says_breaks_its_contract() -> None:
    with pytest.raises(PluginError, match=r"Secretly.*has teachers write 3 completions of 3 rows; `requests` says 0"):
        check_plugin(Secretly())
    check_plugin(Asking())
    assert distillkit.EvalRequests is EvalRequests
