"""`teachers[].share`: each window has the routes' shares, no row comes twice before the others came, from any start."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import question
from helpers.rows import rows_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.training_order import BLOCK, Place, TrainingOrder


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> IndexedRows:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(f'{{"messages": [{{"role": "user", "content": "{i}"}}]}}\n' for i in range(100)))
    return rows_of(path)


def order_of(
    rows: IndexedRows, routes: Sequence[str], shares: Mapping[str, float], epochs: int = 1, seed: int = 0
) -> TrainingOrder:
    """Of the first rows, which have these routes."""
    total = sum(shares.values())
    mine = {name: np.flatnonzero(np.array(routes) == name) for name in shares}
    some = rows.at(np.arange(len(routes)))
    return TrainingOrder(some, epochs, seed, True, {name: share / total for name, share in shares.items()}, mine)


def routes_of(places: Sequence[Place], routes: Sequence[str]) -> list[str]:
    return [routes[position] for position, _ in places]


def test_without_shares_each_epoch_is_the_datasets_order(hundred: IndexedRows) -> None:
    order = TrainingOrder(hundred, 2, 7, True)
    wanted = [(int(position), epoch) for epoch in range(2) for position in hundred.order(epoch, 7, shuffle=True)]
    assert list(order.positions()) == wanted
    assert list(order.positions(150)) == wanted[150:]
    assert order.counts(50) == {}
    assert len(order) == 200


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    parts=st.lists(st.floats(0.05, 1), min_size=4, max_size=4),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_every_prefix_has_the_shares_and_no_row_comes_again_before_the_others_came(
    hundred: IndexedRows, sizes: list[int], parts: list[float], epochs: int, seed: int
) -> None:
    names = "abcd"[: len(sizes)]
    routes = [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]
    shares = dict(zip(names, parts, strict=False))
    order = order_of(hundred, routes, shares, epochs, seed)
    places = list(order.positions())
    assert len(places) == len(order) == len(routes) * epochs
    assert len(set(places)) == len(places)
    found = routes_of(places, routes)
    for name in names:
        mine = [place for place, route in zip(places, found, strict=True) if route == name]
        so_far = np.cumsum([route == name for route in found])
        wanted = order.shares[name] * np.arange(1, len(places) + 1)
        assert np.abs(so_far - wanted).max() <= 0.5 * (len(names) - 1) + 1e-6
        for at, (_, epoch) in enumerate(mine):
            assert epoch == at // sizes[names.index(name)]
        passes = Counter(epoch for _, epoch in mine)
        assert all(len({p for p, e in mine if e == epoch}) == count for epoch, count in passes.items())


def test_shares_like_those_of_the_rows_train_every_row_once_an_epoch(hundred: IndexedRows) -> None:
    routes = ["a"] * 70 + ["b"] * 20 + ["c"] * 10
    places = list(order_of(hundred, routes, {"a": 0.7, "b": 0.2, "c": 0.1}, epochs=3).positions())
    for epoch in range(3):
        assert sorted(places[100 * epoch : 100 * (epoch + 1)]) == [(position, epoch) for position in range(100)]
    windows = [Counter(routes_of(places[start : start + 10], routes)) for start in range(0, 300, 10)]
    assert all(window == {"a": 7, "b": 2, "c": 1} for window in windows)


def test_a_route_that_runs_out_goes_through_its_rows_again_in_another_order(hundred: IndexedRows) -> None:
    routes = ["many"] * 80 + ["few"] * 20
    order = order_of(hundred, routes, {"many": 1, "few": 1})
    places = list(order.positions())
    few = [position for position, epoch in places if routes[position] == "few"]
    assert order.counts(100) == Counter(routes_of(places, routes)) == {"many": 50, "few": 50}
    assert sorted(few[:20]) == sorted(few[20:40]) == list(range(80, 100))
    assert few[:20] != few[20:40]
    assert all(
        window == {"many": 4, "few": 4}
        for window in (Counter(routes_of(places[start : start + 8], routes)) for start in range(0, 96, 8))
    )


def test_it_depends_on_the_seed_and_may_begin_anywhere(hundred: IndexedRows) -> None:
    routes = ["a", "b", "b", "c"] * 25
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    places = list(order_of(hundred, routes, shares, epochs=2).positions())
    for skip in (0, 1, 37, 100, 150, 199, 200):
        assert list(order_of(hundred, routes, shares, epochs=2).positions(skip)) == places[skip:]
    others = list(order_of(hundred, routes, shares, epochs=2, seed=1).positions())
    assert others != places
    assert routes_of(others, routes) == routes_of(places, routes)


def test_rows_behind_the_first_block_go_on(hundred: IndexedRows) -> None:
    routes = ["a"] * 30 + ["b"] * 70
    order = order_of(hundred, routes, {"a": 0.9, "b": 0.1}, epochs=100)
    whole = list(order.positions())
    assert len(whole) == 10_000 > 2 * BLOCK
    assert list(islice(order.positions(BLOCK - 1), 3)) == whole[BLOCK - 1 : BLOCK + 2]
    assert list(order.positions(9_990)) == whole[9_990:]
    assert order.counts(10_000) == {"a": 9_000, "b": 1_000}


def test_sorted_rows_stay_sorted_within_their_route(jsonl: Callable[..., str], tmp_path: Path) -> None:
    rows = rows_of(jsonl([question(str(i)) for i in range(8)]))
    ranked = IndexedRows(rows._index, ranks=np.array([7, 6, 5, 4, 3, 2, 1, 0]))
    order = order_of(ranked, ["a", "b"] * 4, {"a": 1, "b": 1})
    assert [position for position, _ in order.positions()] == [6, 7, 4, 5, 2, 3, 0, 1]
