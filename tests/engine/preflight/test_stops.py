"""Where completions end, by stops of text and of ids."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from distillkit import RunConfig
from distillkit.errors import InputError
from engine.preflight.turn_endings import END, START, Ending, EndingScorer, Ends, inspect

Make = Callable[..., RunConfig]


class SpecialOnly(Ending):
    name: ClassVar[str] = "special-only"
    stops_at_any_id: ClassVar[bool] = False


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"stop_ids": (258,)}, r"sampling\.stop_ids: 258 is no id of the student's tokenizer; its last is 257"),
        (
            {"stop": ("<|im_end|>\n",)},
            r"sampling\.stop: '<\|im_end\|>\\n' holds the special token '<\|im_end\|>' and more",
        ),
        ({"stop": ("<|im_end|><|im_start|>",)}, "holds the special token"),
    ],
)
def test_stops_that_never_come_are_refused(make: Make, sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        inspect(make((END, (END,)), (END, (END,)), sampling=sampling))


def test_texts_stay_stop_strings(make: Make) -> None:
    sampling = inspect(
        make((END, (END,)), (END, (END,)), sampling={"stop": ("\n\n", "<|im_start|>", "|im_end|")})
    ).sampling
    assert (sampling.stop, sampling.stop_ids) == (("\n\n", "|im_end|"), (END, START))


def test_a_sampler_that_takes_texts_alone_ends_at_special_tokens_alone(fake_config: Make) -> None:
    def config(**sampling: Any) -> RunConfig:
        section = {"model": "t", "scorer": EndingScorer()}
        return fake_config(student=SpecialOnly(), teachers=[section], sampling=sampling)

    assert inspect(config(stop_ids=(START,))).ending_ids == {START, END}
    with pytest.raises(
        InputError, match=r"'special-only' ends completions at special tokens alone, and '\\n' \(id 10\)"
    ):
        inspect(config(stop_ids=(10,)))


def test_a_run_in_which_nothing_ends_a_completion_says_so(make: Make) -> None:
    def said(ends: Ends, **sampling: Any) -> bool:
        notes = inspect(make(ends, ends, sampling=sampling)).notes
        return any(note.startswith("nothing ends a completion") for note in notes)

    assert said((None, ()))
    assert not said((None, ()), stop=("x",))
    assert not said((END, (END,)))
