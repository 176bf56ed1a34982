"""Every field of what a checkpoint keeps comes back: the codec is derived from the fields."""

import dataclasses
import json
import math
from typing import Any, get_type_hints

import numpy as np
import pytest

from distillkit.arrays import FloatArray
from distillkit.events import EvalResult, PolicyFigures, RowValue
from distillkit.loop.ledger import Totals
from distillkit.loop.outcomes import LostCompletion
from distillkit.records import Rollout, Score, ScoredRollout
from distillkit.run_directory.checkpoint import EngineState
from distillkit.run_directory.codec import from_json, to_json
from distillkit.run_directory.rollout_codec import InFlight
from distillkit.testing import make_rollout, make_scored
from distillkit.types import SampleKey
from engine.run_directory.same_fields import assert_same


def through_json(fields: Any) -> Any:
    return json.loads(json.dumps(fields, allow_nan=False))


ROLLOUT = dataclasses.replace(
    make_rollout([1, 2, 3], [-0.1, -1e-30, -2.0], mask=[True, True, False], policy_version=4),
    finish_reason="length",
    rewards={"right": 0.5},
)
SCORED = make_scored(ROLLOUT, [-0.3, -1 / 3, -5.0])
SCORE = dataclasses.replace(
    SCORED.scores["teacher"],
    version=3,
    arrays={
        "topk": np.array([[-0.1, np.nan], [-np.inf, -1e-7], [-0.3, -4.0]], np.float16),
        "flags": np.ones((3, 2, 2), bool),
    },
)
BEFORE = PolicyFigures(
    0,
    {"kl": EvalResult({"kl": 0.5, "y": math.nan}, {"t": {"kl": 0.5}}, {"kl": {"1-a": RowValue(1 / 3, 7.0)}})},
    {"1-a": "t"},
)
VALUES: list[tuple[Any, dict[str, Any]]] = [
    (ROLLOUT, {"request": ROLLOUT.request}),
    (SCORE, {"request": SCORE.request}),
    (SampleKey("3-abc", 1, 2), {}),
    (BEFORE, {}),
    (LostCompletion(SampleKey("3-abc", 1, 2), "score", "busy", True, "teacher"), {}),
    (Totals(*range(1, 1 + len(dataclasses.fields(Totals)))), {}),
    (
        EngineState(
            7,
            {"rows": 3},
            1.5,
            BEFORE,
            2,
            {"train/loss": 0.1, "x": None},
            {"metrics.jsonl": 10},
            (InFlight(4, {"rollouts": []}),),
            {"seed": 0},
            "2026-03-04",
            followed_up=False,
        ),
        {},
    ),
]


@pytest.mark.parametrize(("value", "given"), VALUES, ids=[type(value).__name__ for value, _ in VALUES])
def test_every_field_comes_back(value: Any, given: dict[str, Any]) -> None:
    fields = through_json(to_json(value, without=given))
    assert fields.keys() == {field.name for field in dataclasses.fields(value)} - given.keys()
    assert_same(from_json(type(value), fields, **given), value)
    for field in dataclasses.fields(value):  # a value at its default would come back though it was forgotten
        if field.name not in given and field.default is not dataclasses.MISSING:
            assert getattr(value, field.name) is not field.default, f"{field.name} is tested at its default"


@pytest.mark.parametrize("cls", [Rollout, Score, ScoredRollout])
def test_a_new_field_is_kept_without_a_line_of_code(cls: type) -> None:
    value: Any = {Rollout: ROLLOUT, Score: SCORE, ScoredRollout: SCORED}[cls]
    given = {name: getattr(value, name) for name in ("request", "rollout", "prompts", "scores") if hasattr(value, name)}
    grown = dataclasses.make_dataclass(
        f"Grown{cls.__name__}",
        [("ids", FloatArray, dataclasses.field(default=None)), ("note", "str | None", None)],
        bases=(cls,),
        frozen=True,
        eq=False,
    )
    names = [field.name for field in dataclasses.fields(cls)]
    more = grown(**{name: getattr(value, name) for name in names}, ids=np.array([0.5, np.nan], np.float32), note="new")
    assert {"ids", "note"} <= get_type_hints(grown).keys()
    again = from_json(grown, through_json(to_json(more, without=given)), **given)
    assert_same(again, more)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="a set cannot be saved"):
        to_json(dataclasses.replace(ROLLOUT, rewards={"a": {1}}), without=("request",))
    with pytest.raises(TypeError, match="no field 'colour'"):
        from_json(SampleKey, {"row_id": "1", "epoch": 0, "sample": 0, "colour": 1})
    with pytest.raises(KeyError, match="sample"):
        from_json(SampleKey, {"row_id": "1", "epoch": 0})
