from pathlib import Path

from distillkit.events import EvalResult, Evaluated, Measure, Notice, RunStarted, StepFinished
from distillkit.loop.run_story import RunStory, chosen
from distillkit.testing import TEST_PLAN, make_teacher

TEACHERS = (make_teacher("org/long-b", model="org/long-b"), make_teacher("a", model="org/small"))


def started(**student: object) -> RunStarted:
    return RunStarted("r", Path("runs/r"), TEST_PLAN, TEACHERS, 1, {"student": {"name": "local", **student}})


def test_it_begins_with_what_most_decides_how_the_run_goes() -> None:
    line = RunStory().line(started(learning_rate=1e-5, lora_rank=16))
    assert line is not None
    assert line.endswith(
        "8 rows, 8 completions in all; learning rate 1e-05, LoRA of rank 16, a step: 4 rows x 1 completions of at most "
        "16 tokens"
    )
    assert "all weights are trained" in str(RunStory().line(started(lora_rank=0)))
    assert "in all; a step: 4 rows" in str(RunStory().line(started()))


def test_the_summary_has_the_same_as_settings() -> None:
    found = chosen({"student": {"learning_rate": 0.5, "lora_rank": 0, "model": "m"}}, TEST_PLAN)
    sizes = {"step_rows": 4, "completions_per_prompt": 1, "max_completion_tokens": 16}
    assert found == {"learning_rate": 0.5, "lora_rank": 0, **sizes}


def test_evaluations_are_told_in_peoples_names_and_routes_in_the_configs_order() -> None:
    story = RunStory()
    story.line(started())
    routes = {"a": {"reverse_kl": 0.25, "raw": 1.0}, "org/long-b": {"reverse_kl": 1.5}}
    results = {"reverse_kl": EvalResult({"reverse_kl": 0.4321, "raw": 3.0}, routes)}
    event = Evaluated("before", 0, results, measures={"reverse_kl": Measure("reverse KL, nats a token", "lower")})
    shown = [teacher.shown for teacher in TEACHERS]
    said = f"reverse KL, nats a token 0.432, {shown[0]} 1.50, {shown[1]} 0.250"
    assert story.line(event) == f"evaluation before training, at step 0: {said}"


def test_a_step_has_its_learning_rate_and_each_teachers_gap_in_the_same_order() -> None:
    story = RunStory()
    story.line(started())
    slugs = [f"teacher_route/{teacher.slug}/reverse_kl" for teacher in TEACHERS]
    gaps = dict(zip(slugs, (1.5, 0.25), strict=True))
    metrics = {"train/reverse_kl": 0.43211, "train/learning_rate": 2.5e-6, "time/step": 1.0, "time/sample": 0.5, **gaps}
    shown = [teacher.shown for teacher in TEACHERS]
    assert story.line(StepFinished(3, metrics)) == (
        f"step 3: reverse KL 0.432, learning rate 2.5e-06, {shown[0]} 1.50, {shown[1]} 0.250, 1.00 s (sampling 0.50)"
    )


def test_what_has_no_line_of_its_own() -> None:
    assert RunStory().line(Notice("it is logged as it is")) is None
