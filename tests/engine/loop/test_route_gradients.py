"""Each route's gradient norm and the angles between routes are in the metrics, where the student can say them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import question

from distillkit import BadStepError, InputError, PluginError, RunConfig, check, run
from distillkit.loop.batch_maker import BatchMaker
from distillkit.loop.route_gradients import RouteGradients
from distillkit.records import ScoredRollout
from distillkit.testing import FakeStudent, make_rollout, make_row, make_scored, make_teacher
from distillkit.training_data import Batch
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

TEACHERS = [make_teacher("math"), make_teacher("prose"), make_teacher("idle")]
Make = Callable[..., RunConfig]


class Measuring(FakeStudent):
    """Says what its gradients are."""

    name: ClassVar[str] = "measuring"
    seen: ClassVar[list[list[int]]] = []

    async def route_gradients(self, batches: Sequence[Batch]) -> Sequence[Sequence[float]] | None:
        self.seen.append([len(batch.datums) for batch in batches])
        gradients = np.array([np.sum([self._gradient(d, 20.0)[1] for d in batch.datums], axis=0) for batch in batches])
        return (gradients.astype(np.float64) @ gradients.T).tolist()  # type: ignore[no-any-return]


class Unable(FakeStudent):
    """Cannot say it in this run."""

    name: ClassVar[str] = "unable"
    answer: ClassVar[Any] = None

    async def route_gradients(self, batches: Sequence[Batch]) -> Sequence[Sequence[float]] | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


def two_routes(
    fake_config: Make, jsonl: Callable[..., str], student: FakeStudent, every: int, **over: Any
) -> RunConfig:
    rows = [question(f"number {i}", teacher=("math", "prose")[i % 2]) for i in range(8)]
    teachers: list[Mapping[str, Any]] = [
        {"model": name, "route_value": name, "scorer": {"name": "fake", "likes": likes}}
        for name, likes in (("math", "0123"), ("prose", "abcd"))
    ]
    train = {"prompt_groups_per_step": 4, "route_gradients_every": every, **over.pop("train", {})}
    data = {"path": jsonl(rows, "two.jsonl"), "shuffle": False}
    return fake_config(data=data, teachers=teachers, train=train, **over).model_copy(update={"student": student})


def names(row: Mapping[str, Any]) -> set[str]:
    return {name for name in row if name.startswith("route_cosine/") or name.endswith("/grad_norm")} - {
        "train/grad_norm"
    }


def test_a_run_has_them_every_so_many_steps_and_trains_the_same(fake_config: Make, jsonl: Callable[..., str]) -> None:
    Measuring.seen.clear()
    found = run(two_routes(fake_config, jsonl, Measuring(learning_rate=5.0), 2, name="measured")).metrics
    plain = run(two_routes(fake_config, jsonl, Measuring(learning_rate=5.0), 0, name="plain")).metrics
    assert Measuring.seen == [[4, 4]]
    assert not names(found[0])
    assert names(found[1]) == {
        "teacher_route/math/grad_norm",
        "teacher_route/prose/grad_norm",
        "route_cosine/math/prose",
    }
    assert -1 <= found[1]["route_cosine/math/prose"] <= 1
    for mine, other in zip(found, plain, strict=True):
        assert {k: v for k, v in mine.items() if k not in names(mine) and not k.startswith("time/")} == {
            k: v for k, v in other.items() if not k.startswith("time/")
        }


def test_of_a_step_it_is_the_first_optimizer_step(fake_config: Make, jsonl: Callable[..., str]) -> None:
    Measuring.seen.clear()
    run(two_routes(fake_config, jsonl, Measuring(), 1, train={"num_substeps": 2}))
    assert Measuring.seen == [[2, 2]] * 2


def test_a_student_that_cannot_is_refused_before_the_run(fake_config: Make, jsonl: Callable[..., str]) -> None:
    with pytest.raises(InputError, match=r"train\.route_gradients_every: student 'fake' cannot measure gradients"):
        check(two_routes(fake_config, jsonl, FakeStudent(), 1))
    assert check(two_routes(fake_config, jsonl, FakeStudent(), 0)).ok


def test_where_it_cannot_be_had_it_is_said_once(fake_config: Make, jsonl: Callable[..., str]) -> None:
    result = run(two_routes(fake_config, jsonl, Unable(), 1))
    assert not any(names(row) for row in result.metrics)
    log = (result.run_dir / "run.log").read_text()
    assert log.count("student 'unable'") == log.count("cannot measure gradients by route in this run") == 1


def test_a_gradient_that_is_not_finite_refuses_the_step(
    fake_config: Make, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unable, "answer", BadStepError("the loss is nan"))
    result = run(two_routes(fake_config, jsonl, Unable(), 2, train={"max_failed_fraction": 1.0}))
    assert [row.get("train/refused_completions") for row in result.metrics] == [None, 8.0]


def test_products_of_another_shape_are_refused(
    fake_config: Make, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unable, "answer", np.ones((3, 3)))
    with pytest.raises(PluginError, match=r"unable.*products of the shape \[3, 3\] for 2 batches"):
        run(two_routes(fake_config, jsonl, Unable(), 1))


class Told(FakeStudent):
    """Gives the products that it is told."""

    name: ClassVar[str] = "told"
    products: ClassVar[Any] = None

    async def route_gradients(self, batches: Sequence[Batch]) -> Sequence[Sequence[float]] | None:
        return self.products  # type: ignore[no-any-return]


def scored(*routes: str) -> list[ScoredRollout]:
    rows = [make_row(str(line), line=line) for line in range(1, len(routes) + 1)]
    return [
        make_scored(make_rollout([1, 2], row=row), [-1.0, -2.0], teacher=route, row=row)
        for row, route in zip(rows, routes, strict=True)
    ]


@pytest.mark.parametrize(
    ("products", "wanted"),
    [
        ([[4.0, -3.0], [-3.0, 9.0]], {"math": 2.0, "prose": 3.0, "cosine": -0.5}),
        ([[4.0, 6.0000001], [6.0000001, 9.0]], {"math": 2.0, "prose": 3.0, "cosine": 1.0}),
        ([[0.0, 0.0], [0.0, 9.0]], {"math": 0.0, "prose": 3.0}),
    ],
)
async def test_norms_and_cosines_are_of_the_products(
    products: Any, wanted: Mapping[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Told, "products", products)
    step = scored("prose", "math", "prose")
    gradients = RouteGradients(Told(), 1, TEACHERS, print)
    found = await gradients.measure(1, BatchMaker(ImportanceSampling()).batch(step).batch, step)
    assert found.pop("route_cosine/math/prose", None) == pytest.approx(wanted.get("cosine"))
    assert found == {f"teacher_route/{name}/grad_norm": wanted[name] for name in ("math", "prose")}
