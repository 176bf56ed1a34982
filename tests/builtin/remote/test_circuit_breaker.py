import math
from dataclasses import dataclass

from distillkit_builtin.remote.circuit_breaker import LONGEST_COOL_DOWN, CircuitBreaker


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    for _ in range(3):
        breaker.failed(probe=False)
    return breaker


def test_it_opens_after_three_failures_in_a_row() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(2):
        breaker.failed(probe=False)
    breaker.responded()
    for _ in range(2):
        breaker.failed(probe=False)
    assert breaker.is_closed
    breaker.failed(probe=False)
    assert not breaker.is_closed
    assert breaker.opens_in() == 1.0


def test_half_open_lets_one_probe_through() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now = 1.0
    assert breaker.opens_in() == 0.0
    assert breaker.started()
    assert breaker.opens_in() == math.inf
    breaker.responded()
    assert breaker.is_closed
    assert breaker.opens_in() == 0.0


def test_the_cool_down_doubles_up_to_a_cap_and_starts_again_after_a_response() -> None:
    clock = Clock()
    breaker, waits = broken(clock), []
    for _ in range(7):
        waits.append(breaker.opens_in())
        clock.now += waits[-1]
        breaker.failed(probe=breaker.started())
    assert waits == [1, 2, 4, 8, 16, LONGEST_COOL_DOWN, LONGEST_COOL_DOWN]
    breaker.responded()
    for _ in range(3):
        breaker.failed(probe=False)
    assert breaker.opens_in() == 1.0


def test_late_failures_of_what_was_sent_before_do_not_prolong_the_cool_down() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now = 0.5
    breaker.failed(probe=False)
    assert breaker.opens_in() == 0.5


def test_an_abandoned_probe_leaves_room_for_the_next() -> None:
    clock = Clock()
    breaker = broken(clock)
    clock.now = 1.0
    breaker.abandoned(probe=breaker.started())
    assert breaker.opens_in() == 0.0
    assert not breaker.is_closed


def test_a_rest_is_kept_by_a_healthy_replica_too() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    breaker.cool_down(5.0)
    breaker.cool_down(2.0)
    assert breaker.is_closed
    assert breaker.opens_in() == 5.0
    clock.now = 5.0
    assert breaker.opens_in() == 0.0
