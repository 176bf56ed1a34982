from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

from distillkit import Loss, RunConfig, TokenLoss, run
from distillkit.errors import ConfigError, InputError
from distillkit.preflight.compatibility import require_capabilities
from distillkit.testing import FakeStudent
from distillkit.training_data import Batch, StepResult
from distillkit_builtin.losses.importance_sampling import ImportanceSampling, importance_sampling

Make = Callable[..., RunConfig]


class Plain(FakeStudent):
    """Its importance_sampling has no options."""

    name: ClassVar[str] = "plain"
    takes: ClassVar[frozenset[str]] = frozenset()
    _options: list[Mapping[str, float]] = PrivateAttr(default_factory=list)

    @property
    def sent(self) -> list[Mapping[str, float]]:
        return self._options

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        return {"importance_sampling": self.takes}

    async def train(self, batch: Batch) -> StepResult:
        self._options.append(batch.options)
        return await super().train(batch)


class Capped(Plain):
    """Its importance_sampling takes the cap."""

    takes: ClassVar[frozenset[str]] = frozenset({"ratio_log_cap"})


def metrics_of(config: RunConfig) -> list[Any]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in run(config).metrics]


@pytest.mark.parametrize("cap", [20.0, 1000.0, float("inf")])
def test_an_option_without_effect_is_not_sent_to_a_student_that_lacks_it(fake_config: Make, cap: float) -> None:
    found = {}
    for student in (Plain(learning_rate=30), Capped(learning_rate=30)):
        loss = ImportanceSampling(ratio_log_cap=cap)
        found[type(student)] = metrics_of(fake_config(student=student, loss=loss, name=type(student).__name__))
        assert set(map(len, student.sent)) == {len(student.takes)}
        assert all(options == loss.options_for(student.takes) for options in student.sent)
    assert found[Plain] == found[Capped]


def test_an_option_with_an_effect_is_refused_with_its_value(fake_config: Make) -> None:
    config = fake_config(student=Plain(), loss=ImportanceSampling(ratio_log_cap=5))
    with pytest.raises(InputError, match=r"its importance_sampling takes no option ratio_log_cap \(here 5\)"):
        run(config)
    student = Capped()
    run(fake_config(student=student, loss=ImportanceSampling(ratio_log_cap=5)))
    assert student.sent[0] == {"ratio_log_cap": 5.0}


@pytest.mark.parametrize("key", ["path", "eval_path"])
@pytest.mark.parametrize("path", ["hf://org/name#train[:3]", "hf://"])
def test_a_path_that_its_source_refuses_is_the_users_mistake(fake_config: Make, key: str, path: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.{key}: 'hf://.* is no "):
        run(fake_config(data={key: path}))


class Idless(Loss):
    """Needs the teachers' logprobs of ids that nobody names."""

    name: ClassVar[str] = "idless"
    of_teachers: int = 0
    of_sampler: int = 0

    def needs(self) -> Mapping[str, int]:
        return {"at_ids": 4, **({"topk": self.of_teachers} if self.of_teachers else {})}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": self.of_sampler} if self.of_sampler else {}

    def token_loss(self) -> TokenLoss:
        return importance_sampling


def test_logprobs_of_ids_that_nothing_gives_are_refused_before_anything_is_sampled(fake_config: Make) -> None:
    student = FakeStudent()
    with pytest.raises(InputError, match="'idless' needs at_ids of the scorers, and nothing gives the ids"):
        require_capabilities(fake_config(loss=Idless()), student)
    for found in (Idless(of_teachers=4), Idless(of_sampler=4)):
        require_capabilities(fake_config(loss=found), student)


class OwnCode(ImportanceSampling):
    """Its parent's inputs, and a loss of a token of its own."""

    name: ClassVar[str] = "own_code"

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: -positions.logprobs


class OwnInputs(ImportanceSampling):
    """Its parent's loss of a token."""

    name: ClassVar[str] = "own_inputs"


def test_a_service_never_trains_a_parents_loss_in_the_place_of_a_losss_own_code(fake_config: Make) -> None:
    with pytest.raises(InputError, match=r"the loss function 'own_code' of loss .* Student local trains every"):
        run(fake_config(student=Capped(), loss=OwnCode()))
    student = Capped()
    run(fake_config(student=student, loss=OwnInputs()))
    assert student.sent
