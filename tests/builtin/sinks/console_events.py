"""Events of a run of two teachers, as the console hears them."""

from dataclasses import replace
from pathlib import Path

from distillkit.events import EvalResult, Evaluated, Measure, RunStarted, StepFinished
from distillkit.testing import TEST_PLAN, make_rollout, make_row, make_scored, make_teacher

TEACHERS = (make_teacher("short"), make_teacher("[list]"))
STARTED = RunStarted("run", Path("runs/run"), replace(TEST_PLAN, steps=4), TEACHERS, 1, {})


def step(number: int, *, scored: int = 3, failed: int = 0, **metrics: float) -> StepFinished:
    """Only the first teacher scores."""
    mine = f"teacher_route/{TEACHERS[0].slug}"
    values = {
        "train/reverse_kl": 0.4321,
        "train/active_tokens": 2468.0,
        "time/step": 2.0,
        "completions/mean_length": 40.2,
        "completions/truncated_fraction": 0.125,
        f"{mine}/scored": float(scored),
        f"{mine}/failed": float(failed),
        f"{mine}/reverse_kl": 0.25,
    }
    return StepFinished(number, {**values, **metrics})


def evaluated() -> Evaluated:
    text = "an [answer]"
    example = make_scored(
        make_rollout(list(text.encode())), [-1.0] * len(text), teacher="short", row=make_row("a [question]")
    )
    result = EvalResult({"reverse_kl": 0.5}, {"short": {"reverse_kl": 0.125}})
    return Evaluated("before", 0, {"reverse_kl": result}, (example,), measures={"reverse_kl": Measure("reverse KL")})
