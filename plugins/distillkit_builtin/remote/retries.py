"""Trying again, within a budget of seconds: exponential back-off with full jitter, and what the server asks for.

The jitter is "full" as in Brooker, "Exponential Backoff and Jitter" (2015): any time up to the back-off.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from distillkit_builtin.remote.results import Answer, AttemptError, NoReplicaError, UnansweredError

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 10.0
"""Seconds."""


@dataclass(slots=True)
class Budget:
    """The seconds within which an attempt may start, from `begin` on: waiting in our own line costs nothing."""

    seconds: float
    clock: Callable[[], float]
    begun_at: float | None = None

    def begin(self, at: float) -> None:
        """Count from `at`; said before every attempt, only the first time counts."""
        if self.begun_at is None:
            self.begun_at = at

    def spent(self) -> float:
        """Seconds since it began."""
        return 0.0 if self.begun_at is None else self.clock() - self.begun_at

    def left(self) -> float:
        """Seconds that are left."""
        return self.seconds - self.spent()


def backed_off(state: RetryCallState) -> float:
    """Seconds until the next attempt, which may go to another replica: the one that asks for rest gets it there."""
    return wait_random_exponential(multiplier=FIRST_BACKOFF, max=LONGEST_BACKOFF)(state)


def backed_off_as_told(state: RetryCallState) -> float:
    """Seconds until the next attempt at the same replica, never before the time that it asks for."""
    error = state.outcome.exception() if state.outcome is not None else None
    told = error.retry_after if isinstance(error, AttemptError) else None
    return max(backed_off(state), told or 0.0)


async def persist(
    once: Callable[[], Awaitable[Answer]],
    budget: Budget,
    wait: Callable[[RetryCallState], float],
    count_retry: Callable[[], None],
) -> Answer:
    """The first good answer of `once`.

    Raises:
        RefusedError: from `once`.
        UnansweredError: if the budget is spent, or would be before the next attempt may start.
    """

    def is_spent(state: RetryCallState) -> bool:
        return state.upcoming_sleep >= budget.left()

    retrying = AsyncRetrying(
        sleep=asyncio.sleep,
        retry=retry_if_exception_type(AttemptError),
        wait=wait,
        stop=is_spent,
        before_sleep=lambda _: count_retry(),
        reraise=True,
    )
    try:
        return await retrying(once)
    except AttemptError as error:
        attempts, told = retrying.statistics["attempt_number"], error.retry_after
        raise UnansweredError(_reason(str(error), attempts, budget), attempts, told) from error
    except NoReplicaError as error:
        attempts = retrying.statistics["attempt_number"] - 1  # the one that could not start is none
        raise UnansweredError(_reason(str(error), attempts, budget), attempts, error.opens_in) from error


def _reason(last: str, attempts: int, budget: Budget) -> str:
    return f"{last} ({attempts} attempt(s) in {budget.spent():.1f} s of the {budget.seconds:g} s of timeouts.retry)"
