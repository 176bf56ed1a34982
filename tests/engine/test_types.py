import json
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from distillkit import events, records, training_data, types
from distillkit.arrays import frozen_array, logprob_array, token_ids
from distillkit.data.named_teachers import named
from distillkit.errors import AlignmentError
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
from distillkit.testing import TEST_PLAN, make_rollout, make_row, make_scored, make_teacher
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
from distillkit_builtin.losses.importance_sampling import ImportanceSampling


def test_arrays_are_read_only_copies() -> None:
    source = np.array([1, 2, 3])
    ids = token_ids(source)
    source[0] = 9
    assert ids.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 5
    assert frozen_array(ids, np.int64) is ids


@pytest.mark.parametrize("logprobs", [[-1.0], [-1.0, -2.0, -3.0]])
def test_a_rollout_refuses_another_number_of_logprobs(logprobs: list[float]) -> None:
    with pytest.raises(AlignmentError, match=r"for 2 tokens"):
        make_rollout([5, 6], logprobs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_logprob_that_is_no_number_is_refused_with_its_token(bad: float) -> None:
    with pytest.raises(AlignmentError, match="token 1 is"):
        make_rollout([5, 6], [-1.0, bad])


def test_an_empty_rollout_is_refused() -> None:
    with pytest.raises(AlignmentError, match="yield a Failure"):
        make_rollout([])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1000])
def test_without_a_mask_every_token_is_active(count: int) -> None:
    rollout = make_rollout([5] * count)
    assert rollout.active.tolist() == [True] * count
    assert rollout.active_count == count
    assert rollout.at_active(rollout.logprobs) is rollout.logprobs
    with pytest.raises(ValueError, match="read-only"):
        rollout.active[0] = False


def test_a_mask_picks_the_active_tokens() -> None:
    rollout = make_rollout([5, 6, 7], [-1.0, -2.0, -3.0], mask=[True, False, True])
    assert rollout.active_count == 2
    assert rollout.at_active(rollout.logprobs).tolist() == [-1.0, -3.0]


def test_masked_positions_may_be_nan() -> None:
    rollout = make_rollout([5, 6, 7], mask=[True, False, True])
    assert np.isnan(rollout.logprobs[1])
    assert rollout.active.tolist() == [True, False, True]


def test_a_score_refuses_other_ids_than_the_sampled_ones() -> None:
    request = ScoreRequest(make_rollout([5, 6, 7]), "t", token_ids([1]))
    with pytest.raises(AlignmentError, match="token 2 is id 8, not the sampled 7"):
        Score(request, logprob_array([-1, -1, -1]), token_ids([5, 6, 8]))
    with pytest.raises(AlignmentError, match="2 ids came back for 3 tokens"):
        Score(request, logprob_array([-1, -1, -1]), token_ids([5, 6]))
    with pytest.raises(AlignmentError, match="2 logprobs"):
        Score(request, logprob_array([-1, -1]), None)
    with pytest.raises(AlignmentError, match=r"arrays\['topk_ids'\] has the shape \(2, 4\) for 3 tokens"):
        Score(request, logprob_array([-1, -1, -1]), None, arrays={"topk_ids": np.zeros((2, 4))})


def test_ids_that_were_not_echoed_are_not_proved() -> None:
    request = ScoreRequest(make_rollout([5]), "t", token_ids([1]))
    assert not Score(request, logprob_array([-1]), None).ids_proved
    assert Score(request, logprob_array([-1]), token_ids([5])).ids_proved


def test_teachers_of_a_run_are_never_called_the_same() -> None:
    alone = Teacher("a/b c", "m")
    assert (alone.shown, alone.slug) == ("a/b c", "a-b-c")
    slashed, dashed = named([alone, Teacher("a-b c", "m")])
    assert slashed.slug != dashed.slug
    assert slashed.slug.startswith("a-b-c-")
    assert slashed == alone  # what it is called does not make it another teacher


def test_a_teacher_is_called_by_the_last_part_of_its_model_and_known_by_all_of_it() -> None:
    teacher = Teacher("Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B")
    assert (teacher.name, teacher.shown, teacher.slug) == ("Qwen/Qwen3-1.7B", "Qwen3-1.7B", "Qwen3-1.7B")


def datum(inputs: Mapping[str, object], ids: Sequence[int] = (5, 6, 7)) -> Datum:
    return Datum(SampleKey("3-cafe", 0, 1), token_ids([1]), token_ids(ids), inputs)  # type: ignore[arg-type]


def test_a_datum_refuses_inputs_of_another_length_and_names_them() -> None:
    for values in (np.zeros(4), np.zeros((2, 3)), np.float32(1.0)):
        with pytest.raises(
            AlignmentError, match=r"row 3-cafe, epoch 0, .*: inputs\['advantages'\] has .* for 3 tokens"
        ):
            datum({"weights": np.zeros(3), "advantages": values})
    assert datum({"topk": np.zeros((3, 20))}).inputs["topk"].shape == (3, 20)


def test_inputs_are_numbers() -> None:
    with pytest.raises(AlignmentError, match=r"inputs\['names'\] is of <U1, not of numbers"):
        datum({"names": np.array(["a", "b", "c"])})


def test_token_ids_are_whole_and_in_one_line() -> None:
    with pytest.raises(AlignmentError, match="token ids are whole numbers, and float64 with fractions was given"):
        token_ids([1.5])
    with pytest.raises(AlignmentError, match=r"Datum.response_ids has the shape \(1, 3\)"):
        datum({}, [[5, 6, 7]])  # type: ignore[list-item]
    with pytest.raises(AlignmentError, match="fractions"):
        token_ids([float("nan")])
    assert token_ids([]).dtype == np.int64
    assert token_ids([2.0]).tolist() == [2]


def test_two_losses_that_are_misaligned_by_one_token_each_are_refused_before_they_train() -> None:
    """One too long for one completion and one too short for the next: laid end to end, the lengths are right."""

    class Shifted(ImportanceSampling):
        def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
            made = super().batch(scored)
            inputs = {name: np.concatenate([one.inputs[name] for one in made.datums]) for name in made.datums[0].inputs}
            cut = len(made.datums[0].response_ids) + 1
            parts = ({name: array[:cut] for name, array in inputs.items()}, {n: a[cut:] for n, a in inputs.items()})
            return replace(made, datums=[replace(d, inputs=p) for d, p in zip(made.datums, parts, strict=True)])

    scored = [
        make_scored(make_rollout([5, 6, 7], row=row), [-1.0] * 3, row=row) for row in (make_row("a"), make_row("b"))
    ]
    with pytest.raises(AlignmentError, match=r"has the shape \(4,\) for 3 tokens"):
        Shifted().batch(scored)


def test_a_scored_rollout_holds_scores_of_itself_alone() -> None:
    one, other = (make_scored(make_rollout([5], sample=i), [-2.0]) for i in range(2))
    with pytest.raises(AlignmentError, match="by teacher 'teacher' is not one of it"):
        replace(one, scores=other.scores)
    with pytest.raises(AlignmentError, match=r"scored by \['else'\], its route is teacher"):
        replace(one, scores={"else": one.scores["teacher"]})
    elsewhere = replace(one.prompts, route=Route.to("else"))
    with pytest.raises(AlignmentError, match="is not one of it by teacher 'else'"):
        replace(one, prompts=elsewhere, scores={"else": one.scores["teacher"]})


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
