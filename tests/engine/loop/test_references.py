"""Teachers that a loss names besides those of the routes: asked of every token, routed to by no row."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
from conftest import read_jsonl
from helpers.limited_plugins import QuietScorer

import distillkit
from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.preflight.prepared_run import prepare_run
from distillkit.registry import Registry
from distillkit_builtin.losses.importance_sampling import Anchor, ImportanceSampling

Make = Callable[..., RunConfig]


def teacher(name: str, likes: str) -> dict[str, object]:
    return {"model": name, "scorer": {"name": "fake", "likes": likes}}


def with_base(make: Make, **over: object) -> RunConfig:
    """One teacher, and a reference that gives no token more than another."""
    values: dict[str, object] = {
        "teachers": [teacher("t", "abc"), teacher("base", "")],
        "router": "single",
        "loss": {"name": "importance_sampling", "extrapolate": {"reference": "base", "factor": 2.0}},
    }
    return make(**{**values, **over})


def test_a_reference_is_scored_and_changes_the_advantages_and_nothing_else(fake_config: Make) -> None:
    plain, beyond = distillkit.run(fake_config(name="plain")), distillkit.run(with_base(fake_config, name="beyond"))
    first = [result.metrics[0] for result in (plain, beyond)]
    assert first[0]["train/reverse_kl"] == first[1]["train/reverse_kl"]
    assert first[0]["train/abs_advantage"] != first[1]["train/abs_advantage"]
    assert not [name for name in first[1] if name.startswith("teacher_route/base")]
    for record in read_jsonl(beyond.run_dir / "samples.jsonl"):
        assert record["teacher_logprobs"].keys() == {"t"}


def test_no_row_is_routed_to_a_reference_and_nothing_is_said_of_that(fake_config: Make, registry: Registry) -> None:
    said: list[str] = []
    prepared = prepare_run(with_base(fake_config), registry, said.append)
    assert [each.name for each in prepared.pipeline.routed_to] == ["t"]
    assert not [notice for notice in prepared.notices if "base" in notice.message]
    assert prepared.plan.score_tokens > prepare_run(fake_config(), registry, said.append).plan.score_tokens


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            {"loss": {"name": "importance_sampling", "anchor": {}}},
            r"asks teacher 'start' of every token",
        ),
        ({"teachers": [teacher("base", "")]}, r"takes 'base' as a reference.* there is no other teacher"),
    ],
)
def test_a_reference_must_be_there_and_not_alone(
    fake_config: Make, registry: Registry, over: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare_run(with_base(fake_config, **over), registry, print)


def test_the_router_all_sends_each_row_to_every_teacher_with_its_weight(fake_config: Make) -> None:
    teachers = [{**teacher("a", "abc"), "weight": 3.0}, teacher("b", "xyz")]
    result = distillkit.run(fake_config(teachers=teachers, router="all"))
    assert result.steps == 5
    for record in read_jsonl(result.run_dir / "samples.jsonl"):
        assert record["teacher_logprobs"].keys() == {"a", "b"}


@pytest.mark.parametrize("step", [1, 3])
def test_a_resumed_run_has_the_scores_of_references_that_were_sampled_ahead(fake_config: Make, step: int) -> None:
    config = with_base(fake_config, train={"save_every": 1, "keep_last": 9, "max_steps_off_policy": 1})
    first = distillkit.run(config)
    losses = [row["train/loss"] for row in first.metrics]
    again = distillkit.run(config, resume=True, from_step=step)
    assert [row["train/loss"] for row in again.metrics] == losses


class TopKBesideReference(ImportanceSampling):
    """Needs a top-K of the teachers of the rows, and a reference's logprobs."""

    name: ClassVar[str] = "topk_beside_reference"

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "topk": 4}


def test_a_reference_need_not_give_what_the_teachers_of_the_rows_do(fake_config: Make) -> None:
    loss = TopKBesideReference(anchor=Anchor(to="base"))
    quiet = {"model": "base", "scorer": QuietScorer()}
    assert distillkit.run(with_base(fake_config, loss=loss, teachers=[teacher("t", "abc"), quiet])).steps == 5
    quiet = {"model": "t", "scorer": QuietScorer()}
    with pytest.raises(InputError, match=r"scorer 'quiet' of teacher 't' gives sampled; .* needs topk of 4"):
        distillkit.run(with_base(fake_config, name="other", loss=loss, teachers=[quiet, teacher("base", "")]))
