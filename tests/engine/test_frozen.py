"""Nobody can change a value, nor what it holds."""

import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy, deepcopy
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from distillkit import events, records, training_data, types
from distillkit.arrays import frozen_array
from distillkit.events import (
    EvalResult,
    Evaluated,
    Measure,
    Notice,
    PhaseProgress,
    PhaseStarted,
    PolicyFigures,
    RowValue,
    RunFinished,
    RunStarted,
    StepFinished,
)
from distillkit.frozen import frozen
from distillkit.records import Failure, Rollout, Score, ScoredRollout, ScoreRequest, Weights
from distillkit.testing import TEST_PLAN, make_rollout, make_scored, make_teacher
from distillkit.training_data import Batch, Datum, StepResult, TeacherPrompt
from distillkit.types import (
    ChatPrompts,
    Message,
    Prompts,
    Route,
    RoutedRow,
    Row,
    SampleKey,
    SampleRequest,
    SamplingParams,
    Teacher,
)


def test_a_read_only_view_of_what_can_be_changed_is_copied() -> None:
    source = np.zeros(3, np.float32)
    view = source[:]
    view.setflags(write=False)
    for values in (view, np.broadcast_to(source, (3,)), source):
        kept = frozen_array(values)
        source[0] += 1
        assert kept[0] == source[0] - 1


def values() -> list[object]:
    """One of each kind, made of what can be changed."""
    extra, array = {"tool_calls": [{"name": "f", "args": {"x": [1]}}]}, np.zeros(2, np.float32)
    row = Row("1-a", 1, [Message("user", "hi", extra)], {"teacher": "t", "deep": {"list": [{"a": 1}]}})  # type: ignore[arg-type]
    route, ids = Route({"t": 1.0}), np.array([1, 2])
    prompts = Prompts(row, route, ids, {"t": ids})
    request = SampleRequest(SampleKey("1-a", 0, 0), ids, 7, SamplingParams(5))
    rollout = Rollout(
        request, 0, ids, array - 1, "stop", "", np.array([True, True]), {"correct": 1.0}, {"entropy": array}
    )
    score = Score(ScoreRequest(rollout, "t", ids), array - 2, ids, 0, {"topk_ids": np.zeros((2, 3), np.int64)})
    scored = ScoredRollout(rollout, prompts, {"t": score})
    one = Datum(request.key, ids, ids, {"weights": array}, {"t": TeacherPrompt(ids, 1.0)})
    result = EvalResult({"x": 1.0}, {"t": {"x": 1.0}}, {"x": {"1-a": RowValue(1.0)}})
    teacher = Teacher("t", "m", chat_template_kwargs={"tools": ["a"]})
    return [
        *(row, route, teacher, prompts, request, rollout, score, scored, one, result, row.messages[0]),
        RoutedRow(row, route, ChatPrompts(row.messages, {"t": list(row.messages)}, {"t"})),  # type: ignore[dict-item,arg-type]
        *(Batch("f", {"cap": 1.0}, [one]), StepResult({"loss": 1.0}), Weights(1, "live")),  # type: ignore[arg-type]
        *(Failure(request, "why"), TEST_PLAN, PhaseProgress("sample", 1, 2), Notice("x")),
        RunStarted("r", Path("r"), TEST_PLAN, [teacher], 1, {"data": {"path": "x"}, "sinks": []}),  # type: ignore[arg-type]
        Evaluated("after", 1, {"e": result}, [scored], {"e": result}, {"x": Measure("x")}),  # type: ignore[arg-type]
        *(StepFinished(1, {"x": 1.0}), PhaseStarted("load"), PolicyFigures(1, {"e": result}, {"1-a": "t"})),
        RunFinished({"eval": {"before": {"x": 1.0}}, "list": [1]}),
    ]


def parts(value: object) -> Iterator[object]:
    """A value and all that it holds, all the way down."""
    yield value
    if is_dataclass(value):
        held: Iterable[object] = [getattr(value, field.name) for field in fields(value)]
    elif isinstance(value, Mapping):
        held = value.values()
    else:
        held = value if isinstance(value, tuple | list) else ()
    for part in held:
        yield from parts(part)


@pytest.mark.parametrize("value", values(), ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("made", [lambda v: v, copy, deepcopy, replace, lambda v: pickle.loads(pickle.dumps(v))])
def test_nobody_can_change_a_value_or_what_it_holds(value: object, made: Callable[[object], object]) -> None:
    for part in parts(made(value)):
        if is_dataclass(part):
            with pytest.raises(FrozenInstanceError):
                setattr(part, fields(part)[0].name, None)
        elif isinstance(part, np.ndarray):
            assert not part.flags.writeable
        elif isinstance(part, Mapping):
            with pytest.raises(TypeError, match="belongs to a frozen value"):
                part["new"] = 1  # type: ignore[index]
        elif isinstance(part, list):
            with pytest.raises(TypeError, match="belongs to a frozen value"):
                part.append(1)
        else:
            assert isinstance(part, str | int | float | None | tuple | frozenset | Path), part


def test_every_kind_of_value_is_walked() -> None:
    kinds = {
        kind
        for module in (types, records, training_data, events)
        for kind in vars(module).values()
        if isinstance(kind, type) and is_dataclass(kind)
    }
    walked = {type(part) for value in values() for part in parts(value)}
    assert kinds == {kind for kind in walked if is_dataclass(kind)}


@pytest.mark.parametrize("value", values(), ids=lambda value: type(value).__name__)
def test_a_pickle_holds_what_was_put_in(value: object) -> None:
    again = list(parts(pickle.loads(pickle.dumps(value))))
    for one, other in zip(parts(value), again, strict=True):
        assert type(one) is type(other)
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)  # type: ignore[arg-type]
        elif isinstance(one, Mapping):
            assert list(one) == list(other)  # type: ignore[call-overload]
        elif isinstance(one, tuple | list):
            assert len(one) == len(other)  # type: ignore[arg-type]
        elif not is_dataclass(one):
            assert one == other


def test_what_is_changed_in_a_mapping_afterwards_does_not_reach_the_value() -> None:
    metrics, config = {"x": 1.0}, {"data": {"paths": ["a"]}}
    step, started = StepFinished(1, metrics), RunStarted("r", Path("r"), TEST_PLAN, (), 1, config)
    metrics["y"] = 2.0
    config["data"]["paths"].append("b")
    assert (step.metrics, started.config) == ({"x": 1.0}, {"data": {"paths": ["a"]}})
    assert json.dumps(started.config) == '{"data": {"paths": ["a"]}}'


def test_every_way_to_change_a_mapping_or_a_list_is_refused() -> None:
    mapping, values = frozen({"a": 1}), frozen([1, 2])
    changes: list[Callable[[], object]] = [
        lambda: mapping.__setitem__("a", 2),
        lambda: mapping.__delitem__("a"),
        lambda: mapping.__ior__({"b": 1}),
        *(mapping.clear, lambda: mapping.pop("a"), mapping.popitem, lambda: mapping.setdefault("b", 1)),
        lambda: mapping.update(b=1),
        *(lambda: values.__setitem__(0, 2), lambda: values.__delitem__(0), lambda: values.__iadd__([1])),
        *(lambda: values.__imul__(2), lambda: values.append(1), values.clear, lambda: values.extend([1])),
        *(lambda: values.insert(0, 1), values.pop, lambda: values.remove(1), values.reverse, values.sort),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="belongs to a frozen value"):
            change()
    assert (mapping, values) == ({"a": 1}, [1, 2])
    assert (type(mapping | {"b": 1}), type(mapping.copy())) == (dict, dict)


def test_values_are_frozen() -> None:
    scored = make_scored(make_rollout([5]), [-2.0])
    with pytest.raises(AttributeError):
        scored.rollout = make_rollout([6])  # type: ignore[misc]
    with pytest.raises(AttributeError):
        make_teacher().name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Failure(scored.rollout.request, "why").reason = "else"  # type: ignore[misc]
