"""Runs that are refused because turns of student and teacher end otherwise, and maps of what ends them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

from distillkit import RunConfig, Weighting
from distillkit.context import RunContext
from distillkit.data.turn_end_maps import TurnEndMap
from distillkit.errors import InputError
from distillkit.records import ScoredRollout
from distillkit.testing import FakeScorer
from distillkit.tokenizer import Tokenizer
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from engine.preflight.turn_endings import END, EXTRA, START, Ending, EndingScorer, Ends, inspect

Make = Callable[..., RunConfig]


class ShyScorer(FakeScorer):
    """Has no tokenizer of its own."""

    name: ClassVar[str] = "shy"

    def tokenizer(self, run: RunContext) -> Tokenizer | None:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    ("student", "teacher", "sampling", "ending"),
    [
        ((END, (END,)), (END, (END,)), {}, {END}),
        ((END, (END,)), (END, (END, START)), {}, {END}),  # a teacher of the family with more EOS ids
        ((END, (START, END)), (END, (START,)), {}, {START, END}),
        ((None, (END,)), (None, (END,)), {}, {END}),
        ((None, (END, START)), (None, (START,)), {}, {START, END}),
        ((None, ()), (None, ()), {"max_completion_tokens": 4}, set()),
        ((END, (START,)), (END, (END,)), {"stop_ids": (END,)}, {START, END}),
        ((END, (START,)), (END, (END,)), {"stop": ("<|im_end|>",)}, {START, END}),
        ((END, (START,)), (END, (END,)), {"stop": ("<|im_end|>",), "stop_ids": (END,)}, {START, END}),
    ],
)
def test_a_run_whose_turns_end_alike_is_accepted(
    make: Make, student: Ends, teacher: Ends, sampling: dict[str, Any], ending: set[int]
) -> None:
    prepared = inspect(make(student, teacher, sampling=sampling))
    assert prepared.ending_ids == ending
    assert not prepared.turn_ends.of
    assert not prepared.sampling.stop


def test_a_teacher_without_a_tokenizer_of_its_own_ends_as_the_student(fake_config: Make) -> None:
    config = fake_config(student=Ending(ends=(END, (END,))), teachers=[{"model": "t", "scorer": ShyScorer()}])
    assert inspect(config).ending_ids == {END}


def test_a_teacher_whose_turns_end_otherwise_is_refused_with_both_ways_out(make: Make) -> None:
    with pytest.raises(InputError) as caught:
        inspect(make((START, (START,)), (END, (END,))))
    assert str(caught.value) == (
        "teacher 't0' ends its turns with '<|im_end|>' (id 257), and the student's completions end with '<|im_start|>' "
        "(id 256): the teacher gives that end next to no probability, so every ending would get a large negative "
        "advantage, and the student would learn never to end. Set sampling.stop_ids: [257] or sampling.stop: "
        "['<|im_end|>'], which ends completions there; or turn_end: map for this teacher, which scores the student's "
        "end as the teacher's own"
    )


def test_every_such_teacher_is_named_and_no_other(make: Make, jsonl: Callable[..., str]) -> None:
    sections = [
        {"model": name, "route_value": name, "scorer": EndingScorer(ends=ends), "turn_end": turn_end}
        for name, ends, turn_end in (
            ("same", (START, (START,)), "same"),
            ("other", (END, (END,)), "same"),
            ("mapped", (END, (END,)), "map"),
            ("eos", (None, (START, END)), "same"),
        )
    ]
    rows = [{"messages": [{"role": "user", "content": "x"}], "teacher": str(each["model"])} for each in sections]
    with pytest.raises(InputError) as caught:
        inspect(make((START, (START,)), *sections, data={"path": jsonl(rows)}))
    assert [line.partition(" ends ")[0] for line in str(caught.value).splitlines()] == [
        "teacher 'other'",
        "teacher 'eos'",
    ]


def test_a_student_that_runs_on_past_its_own_turn_is_refused(make: Make) -> None:
    with pytest.raises(InputError, match=r"the student's chat template ends a turn with '<\|im_end\|>'.*would run on"):
        inspect(make((END, (START,)), (START, (START,))))
    with pytest.raises(InputError) as caught:  # said once where it is the teacher's end too
        inspect(make((END, (START,)), (END, (END,))))
    assert len(str(caught.value).splitlines()) == 1


def test_one_model_on_both_sides_is_told_what_is_true_of_it(make: Make) -> None:
    """Its template ends turns with another token than its EOS id: to map ends would score what it never writes."""
    with pytest.raises(InputError) as caught:
        inspect(make((END, (START,)), (END, (START,))))
    assert str(caught.value) == (
        "the student's chat template ends a turn with '<|im_end|>' (id 257), and its completions end with "
        "'<|im_start|>' (id 256): one that closes its turn would run on past it, and the student would learn from "
        "what stands behind. Set sampling.stop_ids: [257] or sampling.stop: ['<|im_end|>']"
    )


def test_an_end_that_the_student_cannot_sample_has_one_way_out(make: Make) -> None:
    section = {"model": "t", "scorer": EndingScorer(ends=(EXTRA, (EXTRA,)), more={"<|eot|>": EXTRA})}
    with pytest.raises(InputError) as caught:
        inspect(make((END, (END,)), section))
    assert "'<|eot|>' (id 258)" in str(caught.value)
    assert "stop_ids" not in str(caught.value)
    assert inspect(make((END, (END,)), {**section, "turn_end": "map"})).turn_ends.of["t"].teacher == EXTRA


@pytest.mark.parametrize(
    ("student", "teacher", "sampling", "expected"),
    [
        ((START, (START,)), (END, (END,)), {}, TurnEndMap((START,), END)),
        # SmolLM2's base model: the template writes the teacher's end, and its model ends with another.
        ((END, (START,)), (END, (END,)), {}, TurnEndMap((START,), END)),
        ((None, (START, 10)), (None, (END,)), {}, TurnEndMap((START, 10), END)),
        ((None, ()), (END, (END,)), {"stop_ids": (START,)}, TurnEndMap((START,), END)),
        # Where the teacher's end is one of the student's too, it is read as it is.
        ((START, (START, END)), (END, (END,)), {}, TurnEndMap((START,), END, both_ways=False)),
        ((END, (END,)), (END, (END,)), {}, None),
        # What ends a completion by the user's wish, and no turn, is read as it is.
        ((START, (START,)), (END, (END,)), {"stop_ids": (10,)}, TurnEndMap((START,), END)),
    ],
)
def test_a_map_is_of_what_ends_turns(
    make: Make, student: Ends, teacher: Ends, sampling: dict[str, Any], expected: TurnEndMap | None
) -> None:
    section = {"model": "t", "scorer": EndingScorer(ends=teacher), "turn_end": "map"}
    assert inspect(make(student, section, sampling=sampling)).turn_ends.of.get("t") == expected


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (
            (END, (END,)),
            (None, (START, END)),
            r"its chat template does not show that, and its EOS ids are \[256, 257\]",
        ),
        ((END, (END,)), (None, ()), "and it has no EOS id"),
        ((None, ()), (END, (END,)), "nothing ends its completions; set sampling.stop_ids"),
    ],
)
def test_a_map_that_cannot_be_made_is_refused(make: Make, student: Ends, teacher: Ends, message: str) -> None:
    section = {"model": "t", "scorer": EndingScorer(ends=teacher), "turn_end": "map"}
    with pytest.raises(InputError, match=message):
        inspect(make(student, section))


class Wants(ImportanceSampling):
    name: ClassVar[str] = "wants"

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "at_ids": 1}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": 1}


class GivesIds(EndingScorer):
    name: ClassVar[str] = "gives-ids"

    def capabilities(self) -> Mapping[str, int | None]:
        return {"sampled": None, "at_ids": None}


def test_a_loss_of_which_a_map_knows_nothing_is_refused(make: Make) -> None:
    section = {"model": "t", "scorer": GivesIds(ends=(END, (END,))), "turn_end": "map"}
    with pytest.raises(InputError, match="loss 'wants' needs at_ids of its teachers"):
        inspect(make((START, (START,)), section, loss=Wants()))
    same = {**section, "scorer": GivesIds(ends=(START, (START,)))}
    assert not inspect(make((START, (START,)), same, loss=Wants())).turn_ends.of


class WeighsById(Weighting):
    name: ClassVar[str] = "weighs-by-id"

    def needs(self) -> Mapping[str, int]:
        return {"at_ids": 1}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": 1}

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[np.ndarray]:
        return [np.ones(len(scored.rollout.token_ids)) for scored in step]


def test_a_weighting_of_which_a_map_knows_nothing_is_refused(make: Make) -> None:
    section = {"model": "t", "scorer": GivesIds(ends=(END, (END,))), "turn_end": "map"}
    with pytest.raises(InputError, match="weighting 'weighs-by-id' needs at_ids of its teachers"):
        inspect(make((START, (START,)), section, train={"weightings": [WeighsById()]}))
