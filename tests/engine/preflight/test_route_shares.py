"""`teachers[].share` in a config: what `check` says of it, what a run trains, and what is refused."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl

from distillkit import ConfigError, DataError, InputError, Route, Router, Row, RunConfig, Teacher, check, run
from distillkit.positions import READS
from distillkit.preflight.route_shares import share_notes, share_row
from distillkit_builtin.losses.divergence import Divergence
from distillkit_builtin.losses.entropy_aware import EntropyAware

Make = Callable[..., RunConfig]


class Both(Router):
    """Every row to all teachers."""

    name: ClassVar[str] = "both"

    def route(self, row: Row, teachers: Sequence[Teacher]) -> Route:
        return Route({teacher.name: 1.0 for teacher in teachers})


@pytest.fixture
def shared(fake_config: Make, jsonl: Callable[..., str]) -> Make:
    """Twelve rows of `long` and four of `short`, four rows a step."""

    def make(*shares: float | None, **over: Any) -> RunConfig:
        rows = [question(f"number {i}", teacher="short" if i % 4 == 3 else "long") for i in range(16)]
        teachers = [
            {"model": name, "route_value": name, "scorer": {"name": "fake", "likes": likes}, "share": share}
            for name, likes, share in zip(("long", "short"), ("abc", "xyz"), shares, strict=True)
        ]
        values: dict[str, Any] = {"train": {"prompt_groups_per_step": 4}, "teachers": teachers, **over}
        return fake_config(data={"path": jsonl(rows, "two.jsonl"), **values.pop("data", {})}, **values)

    return make


def trained(config: RunConfig, **options: Any) -> list[tuple[str, str]]:
    """Row and route of each line of the ledger."""
    found = run(config, **options)
    return [(entry["row_id"], entry["route"]) for entry in read_jsonl(found.run_dir / "ledger.jsonl")]


def test_every_step_has_the_shares(shared: Make) -> None:
    entries = trained(shared(1, 1))
    steps = [Counter(route for _, route in entries[at : at + 4]) for at in range(0, 16, 4)]
    assert steps == [{"long": 2, "short": 2}] * 4
    short = [row for row, route in entries if route == "short"]
    assert Counter(short) == dict.fromkeys(short, 2)
    assert len({row for row, route in entries if route == "long"}) == 8


def test_shares_as_they_are_in_the_data_train_every_row_once(shared: Make) -> None:
    entries = trained(shared(0.75, 0.25))
    assert len({row for row, _ in entries}) == 16
    steps = [Counter(route for _, route in entries[at : at + 4]) for at in range(0, 16, 4)]
    assert steps == [{"long": 3, "short": 1}] * 4


def test_a_resumed_run_trains_the_rows_of_a_whole_one(shared: Make) -> None:
    whole = trained(shared(2, 1, name="whole"))
    first = trained(shared(2, 1, name="parts", train={"prompt_groups_per_step": 4, "max_steps": 2}))
    assert first == whole[:8]
    assert trained(shared(2, 1, name="parts"), resume=True) == whole
    with pytest.raises(InputError, match=r"teachers\.1\.share was 1\.0, is 3\.0"):
        run(shared(2, 3, name="parts"), resume=True)


def test_check_says_rows_and_shares(shared: Make) -> None:
    notes = check(shared(1, 1)).notes
    assert "teacher 'long': with its share it trains 8 rows of 12, so that 4 are not trained" in notes
    assert "teacher 'short': with its share it trains 8 rows of 4, each twice (data.epochs=1)" in notes
    assert not [note for note in check(shared(3, 1)).notes if "share" in note]
    assert not [note for note in check(shared(None, None)).notes if "share" in note]


@pytest.mark.parametrize(
    ("epochs", "shares", "notes"),
    [
        (2, (1, 1), ["12 rows; each once or twice", "4 rows; each 4 times"]),
        (2, (3, 1), []),
        (3, (5, 1), ["12 rows; each 3 times or 4 times", "4 rows; each twice"]),
        (1, (15, 1), ["12 rows; each once or twice", "4 rows; so that 3 are not trained"]),
    ],
)
def test_how_often_rows_are_trained(shared: Make, epochs: int, shares: tuple[float, float], notes: list[str]) -> None:
    found = [note for note in check(shared(*shares, data={"epochs": epochs})).notes if "with its share" in note]
    assert len(found) == len(notes)
    for note, wanted in zip(found, notes, strict=True):
        there, _, often = wanted.partition("; ")
        assert f" of {there.split()[0]}, {often}" in note


def test_the_page_of_check_has_the_shares(shared: Make, registry: Any) -> None:
    from distillkit.preflight.prepared_run import prepare_run

    prepared = prepare_run(shared(1, 3), registry, print)
    text = share_row(prepared.order, prepared.plan.rows, prepared.pipeline.teachers)
    assert text == "long 25.0% (4 of 16 rows), short 75.0% (12 of 16 rows)"
    assert len(list(share_notes(prepared.order, 16))) == 2


def test_prompt_tokens_are_a_bound_of_the_rows_that_the_shares_choose(
    fake_config: Make, jsonl: Callable[..., str], registry: Any
) -> None:
    from distillkit.preflight.prepared_run import prepare_run

    rows = [question("x" * (200 if i % 4 == 3 else 10), teacher="wide" if i % 4 == 3 else "thin") for i in range(16)]
    teachers: list[Mapping[str, Any]] = [
        {"model": name, "route_value": name, "scorer": {"name": "fake"}, "share": share}
        for name, share in (("thin", 1), ("wide", 3))
    ]
    config = fake_config(data={"path": jsonl(rows, "wide.jsonl")}, teachers=teachers)
    prepared = prepare_run(config, registry, print)
    rendered = prepared.render([prepared.dataset.row(*place) for place in prepared.order.positions()])
    tokens = sum(len(prompts.student) for prompts in rendered)
    completions, each = config.sampling.max_completion_tokens, config.sampling.completions_per_prompt
    assert prepared.plan.train_tokens == each * (16 * completions + tokens)
    assert prepared.plan.score_tokens == prepared.plan.train_tokens


def test_a_teacher_without_rows_has_no_share(shared: Make) -> None:
    rows = shared(1, 1)
    some = rows.model_copy(update={"data": rows.data.model_copy(update={"max_rows": 3})})
    assert [route for _, route in trained(some)] == ["long"] * 3


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1, None), "'long' has a share and 'short' has none; give every teacher one, or none"),
        ((None, 1), "'short' has a share and 'long' has none"),
        ((0, 1), "greater than 0"),
        ((-1, 1), "greater than 0"),
    ],
)
def test_wrong_shares_are_refused(shared: Make, shares: tuple[float | None, float | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shared(*shares)


def test_rows_of_several_teachers_have_no_share(shared: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shared(1, 1, router=Both())
    monkeypatch.setattr(type(config.loss), "max_teachers", lambda self: None)
    with pytest.raises(DataError, match=r"returned 2 teachers, and teachers\[\]\.share is for rows with one"):
        check(config)
    assert check(shared(None, None, router=Both())).ok


def test_a_route_to_more_teachers_than_the_loss_takes_is_said_once_and_of_the_config(
    fake_config: Make, shared: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = Divergence(support="teacher_topk", k=4)
    monkeypatch.setattr(type(fake_config().student), "loss_capabilities", lambda self: frozenset(READS))
    with pytest.raises(InputError) as caught:
        check(shared(None, None, router="all", loss=loss))
    said = str(caught.value)
    assert not isinstance(caught.value, DataError)
    assert said.count("\n") == 0
    assert said.startswith("router 'all' sends a row to 2 teachers (")
    assert said.endswith(
        ":1, to long, short), and loss 'divergence' takes 1 with these options: take support: full, student_topk or "
        "union, or take a router that sends each row to one"
    )
    assert check(shared(None, None, router="all", loss=Divergence(support="union", k=4))).ok


def test_the_way_out_names_the_supports_that_the_loss_has() -> None:
    assert EntropyAware(support="teacher_topk", k=4).way_out("teachers", 2, 1) == "take support: full"
