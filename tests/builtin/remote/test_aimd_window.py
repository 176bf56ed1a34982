"""The window's arithmetic, on a clock that the test moves."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from distillkit_builtin.remote.aimd_window import FLOOR_SECONDS, AimdWindow


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def window(initial: int = 4, most: int = 256) -> tuple[AimdWindow, Clock]:
    clock = Clock()
    return AimdWindow(initial, most, clock), clock


def round_of(it: AimdWindow, clock: Clock, seconds: float, *, full: bool = True) -> None:
    """A whole window is sent now, and answered after `seconds`."""
    sent, size = clock.now, it.size
    clock.now += seconds
    for _ in range(size):
        it.succeeded(sent, full=full)


def test_a_full_window_of_successes_adds_one() -> None:
    it, clock = window(4)
    clock.now = 1.0
    for _ in range(3):
        it.succeeded(0.0, full=True)
    assert it.size == 4
    it.succeeded(0.0, full=True)
    assert it.size == 5


def test_a_window_that_was_not_full_does_not_grow() -> None:
    it, clock = window(4)
    for _ in range(10):
        round_of(it, clock, 1.0, full=False)
    assert it.size == 4


def test_it_stops_growing_at_twice_the_latency_floor() -> None:
    it, clock = window(4)
    round_of(it, clock, 1.0)
    round_of(it, clock, 2.0)
    assert it.size == 6
    round_of(it, clock, 2.1)
    assert it.size == 6


def test_an_overload_halves_once_a_round_trip_and_never_below_one() -> None:
    it, clock = window(9)
    clock.now = 1.0
    for _ in range(9):
        it.overloaded(0.0)
    assert it.size == 4
    clock.now = 2.0
    it.overloaded(1.5)
    assert it.size == 2
    for _ in range(5):
        clock.now += 1.0
        it.overloaded(clock.now)
    assert it.size == 1


def test_what_was_sent_before_a_cut_does_not_grow_the_window_after_it() -> None:
    it, clock = window(8)
    clock.now = 1.0
    it.overloaded(0.0)
    for _ in range(50):
        it.succeeded(0.5, full=True)
    assert it.size == 4


def test_it_never_exceeds_the_most() -> None:
    it, clock = window(300, most=6)
    assert it.size == 6
    for _ in range(10):
        round_of(it, clock, 1.0)
    assert it.size == 6


def test_a_fast_service_gets_the_whole_window() -> None:
    it, clock = window(16)
    while clock.now < 300:
        round_of(it, clock, 1.0)
    assert it.size == 256


def test_a_saturated_service_is_not_drowned_however_long_it_takes() -> None:
    it, clock = window(16)
    sizes = set()
    while clock.now < 4 * 3600:  # 10 requests a second, whatever the window
        round_of(it, clock, max(1.0, it.size / 10))
        sizes.add(it.size)
    assert max(sizes) == 33  # twice what it started with, whose latency was the first floor


def test_longer_work_holds_the_window_back_for_a_while_only() -> None:
    it, clock = window(16)
    round_of(it, clock, 0.1)
    sizes = set()
    while clock.now < 2 * FLOOR_SECONDS:
        round_of(it, clock, 3.0)
        sizes.add(it.size)
    assert 4 in sizes  # the quarter that was measured
    assert it.size > 40


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 100), st.floats(0, 200))),
)
def test_it_stays_between_one_and_the_most_and_grows_by_one_at_a_time(
    initial: int, most: int, events: list[tuple[bool, bool, float, float]]
) -> None:
    it, clock = window(initial, most)
    for good, full, passed, took in events:
        before, clock.now = it.size, clock.now + passed
        started = clock.now - took
        if good:
            it.succeeded(started, full=full)
        else:
            it.overloaded(started)
            assert it.size in (before, max(1, before // 2)) or it.size <= before * 2  # a measurement ends, too
        assert 1 <= it.size <= most


@given(st.integers(1, 64), st.lists(st.booleans(), max_size=200))
def test_overloads_never_let_it_grow_and_successes_never_shrink_it_within_a_floors_life(
    initial: int, events: list[bool]
) -> None:
    it, clock = window(initial, 64)
    for good in events:
        before, clock.now = it.size, clock.now + 0.1
        if good:
            it.succeeded(clock.now - 0.1, full=True)
            assert it.size in (before, before + 1)
        else:
            it.overloaded(clock.now - 0.1)
            assert it.size in (before, max(1, before // 2))
