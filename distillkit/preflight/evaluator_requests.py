"""What evaluators ask of teachers and student in a run, besides the completions that they share."""

from collections.abc import Sequence
from dataclasses import replace

from distillkit.config.run_config import RunConfig
from distillkit.preflight.prompt_lengths import PromptLengths
from distillkit.roles.attribution import attribute_to
from distillkit.roles.evaluator import EvalRequests
from distillkit.roles.returned import require_returned
from distillkit.roles.sampler import Sampler
from distillkit.run_plan import Plan
from distillkit.types import RoutedRow


def with_requests(plan: Plan, config: RunConfig, rows: Sequence[RoutedRow], held_out: PromptLengths | None) -> Plan:
    """`plan` with what evaluators ask for counted in; `rows` and `held_out` are the held-out rows and their prompts."""
    if held_out is None or not plan.evaluations:
        return plan
    asked = requests_of(config, rows, plan.evaluations)
    prompts = held_out.student.at_most(asked.student_scores, held_out.rows)
    return replace(
        plan,
        eval_teacher_tokens=sum(asked.teacher_completions.values()) * plan.new_tokens,
        eval_student_score_tokens=asked.student_scores * plan.new_tokens + prompts,
    )


def requests_of(config: RunConfig, rows: Sequence[RoutedRow], evaluations: int) -> EvalRequests:
    """The sum over all evaluators, as they say; without the teachers whose scorers cannot sample."""
    teachers = tuple(section.teacher for section in config.teachers)
    sampling = {section.teacher.name for section in config.teachers if isinstance(section.scorer, Sampler)}
    written: dict[str, int] = {}
    scores = 0
    for evaluator in config.evaluators:
        with attribute_to(evaluator, "in requests()"):
            asked = evaluator.requests(rows, teachers, evaluations)
        require_returned(evaluator, asked, EvalRequests, "requests()")
        for name in asked.teacher_completions.keys() & sampling:
            written[name] = written.get(name, 0) + asked.teacher_completions[name]
        scores += asked.student_scores
    return EvalRequests(written, scores)
