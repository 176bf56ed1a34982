"""Rows that whole runs are evaluated on."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from conftest import question
from pydantic import PrivateAttr

from distillkit import EvalContext, Evaluator, RunConfig
from distillkit.events import EvalResult
from engine.loop.failing_runs import Fuse, Loss, Student, Teacher


@pytest.fixture
def held_out(jsonl: Callable[..., str]) -> str:
    return jsonl([question(f"held out {i}") for i in range(6)], "heldout.jsonl")


Make = Callable[..., RunConfig]


class Looking(Evaluator):
    """Scores the held-out rows."""

    name: ClassVar[str] = "looking"
    _fuse: Fuse = PrivateAttr(default_factory=Fuse)

    async def evaluate(self, context: EvalContext) -> EvalResult:
        scored = await context.scored()
        self._fuse.use()
        return EvalResult({"logprob": float(scored[0].scores["t"].logprobs.sum())})


@pytest.fixture
def make(fake_config: Make, jsonl: Callable[..., str]) -> Callable[..., RunConfig]:
    rows = jsonl([question(f"row {i}") for i in range(24)], "rescue.jsonl")
    held_out = jsonl([question("held out")], "rescue-eval.jsonl")

    def config(name: str, fuses: dict[str, Fuse] | None = None, **train: Any) -> RunConfig:
        found = fuses or {}
        student, teacher, loss, evaluator = Student(learning_rate=5.0), Teacher(likes="abc"), Loss(), Looking()
        student._fuses = found
        for plugin, what in ((teacher, "score"), (loss, "batch"), (evaluator, "evaluate")):
            plugin._fuse = found.get(what, plugin._fuse)
        teacher._dead = found.get("dead", teacher._dead)
        return fake_config(
            name=name,
            data={"path": rows, "eval_path": held_out},
            student=student,
            teachers=[{"model": "t", "scorer": teacher}],
            loss=loss,
            evaluators=[evaluator],
            sampling={"completions_per_prompt": 3, "max_completion_tokens": 12},
            train={"prompt_groups_per_step": 2, "max_failed_fraction": 0.2, "eval_every": 2, **train},
        )

    return config
