"""What a loss needs, and what scorers, samplers and students can give: they fit, or a message says what would."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from distillkit import RunConfig
from distillkit.context import RunContext
from distillkit.errors import InputError, PluginError
from distillkit.testing import FakeScorer, check_plugin
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from engine.preflight.prepared import inspect

Make = Callable[..., RunConfig]


class NeedsTopK(ImportanceSampling):
    """Needs more than logprobs."""

    name: ClassVar[str] = "needs_topk"

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "topk": 20}


class SampledScorer(FakeScorer):
    """Gives the sampled tokens alone."""

    def capabilities(self) -> Mapping[str, int | None]:
        return {"sampled": None}


class TopKScorer(FakeScorer):
    """Gives the best ten."""

    def capabilities(self) -> Mapping[str, int | None]:
        return {"sampled": None, "topk": 10}


class Unknown(ImportanceSampling):
    """A loss that no student knows."""

    name: ClassVar[str] = "unknown"
    loss_function: ClassVar[str] = "importance_samplin"


class MoreOptions(ImportanceSampling):
    """An option that the student does not take."""

    def options(self) -> Mapping[str, float]:
        return {**super().options(), "beta": 1.0}


class MisspeltNeed(ImportanceSampling):
    """Needs what it does not spell right, and would read it."""

    def needs(self) -> Mapping[str, int]:
        return {"fulll": 1}


def test_a_misspelt_capability_is_recognised(fake_config: Make) -> None:
    teachers: list[Any] = [{"model": "t", "scorer": SampledScorer()}]
    with pytest.raises(InputError, match=r"needs fulll; did you mean 'full' by 'fulll'\?$"):
        inspect(fake_config(loss=MisspeltNeed(), teachers=teachers))
    with pytest.raises(PluginError, match=r"has `needs` \['fulll'\]; did you mean 'full' by 'fulll'\?"):
        check_plugin(MisspeltNeed())


def test_loss_scorer_and_student_must_fit(fake_config: Make) -> None:
    teachers: list[Any] = [{"model": "t", "scorer": SampledScorer()}]
    with pytest.raises(InputError, match=r"scorer 'fake' of teacher 't' gives sampled; loss '\w+' needs topk of 20$"):
        inspect(fake_config(loss=NeedsTopK(), teachers=teachers))
    with pytest.raises(InputError, match=r"gives sampled, topk up to 10"):
        inspect(fake_config(loss=NeedsTopK(), teachers=[{"model": "t", "scorer": TopKScorer()}]))
    with pytest.raises(InputError, match=r"the loss function 'importance_samplin' of loss '.*'; did you mean"):
        inspect(fake_config(loss=Unknown()))
    with pytest.raises(InputError, match=r"its importance_sampling takes no option beta"):
        inspect(fake_config(loss=MoreOptions()))


class WaysOut(NeedsTopK):
    """Knows what would fit."""

    name: ClassVar[str] = "ways_out"

    def way_out(self, need: str, amount: int, given: int) -> str:
        return f"lower its k below {amount}"


class MoreToBeHad(TopKScorer):
    """Knows how it would give more."""

    def way_out(self, need: str, amount: int, given: int) -> str:
        return f"start its server with --most {amount}"


def test_a_refusal_names_what_would_fit_on_both_sides(fake_config: Make) -> None:
    teachers = [{"model": "t", "scorer": MoreToBeHad()}]
    with pytest.raises(InputError) as caught:
        inspect(fake_config(loss=WaysOut(), teachers=teachers))
    assert str(caught.value) == (
        "scorer 'fake' of teacher 't' gives sampled, topk up to 10; loss 'ways_out' needs topk of 20: start its server "
        "with --most 20, or lower its k below 20"
    )


class Looking(FakeScorer):
    """Keeps what runs say that they need of it."""

    seen: ClassVar[list[tuple[Any, Any]]] = []

    def capabilities(self) -> Mapping[str, int | None]:
        return {"sampled": None, "topk": None}

    def check(self, run: RunContext) -> None:
        self.seen.append((dict(run.scorer_needs), dict(run.sampler_needs)))


def test_plugins_know_what_the_run_needs_of_them(fake_config: Make) -> None:
    inspect(fake_config(loss=NeedsTopK(), teachers=[{"model": "t", "scorer": Looking()}]))
    assert Looking.seen == [({"topk": 20}, {})]
