"""Trying again, within a budget of seconds: exponential back-off with full jitter, and what the server asks for.

The jitter is "full" as in Brooker, "Exponential Backoff and Jitter" (2015): any time up to the back-off.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from distillkit.data.counted import counted
from distillkit_builtin.remote.results import AttemptError, NoReplicaError, Result, UnansweredError

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 10.0
"""Seconds."""


@dataclass(slots=True)
class Budget:
    """The seconds within which an attempt may start, from `begin` on: waiting in our own queue costs nothing."""

    seconds: float
    clock: Callable[[], float]
    begun_at: float | None = None

    def begin(self, at: float) -> None:
        """Count from `at`; called before every attempt, only the first call has an effect."""
        if self.begun_at is None:
            self.begun_at = at

    def spent(self) -> float:
        """Seconds since `begin`; 0 before it."""
        return 0.0 if self.begun_at is None else self.clock() - self.begun_at

    def left(self) -> float:
        """Seconds that are left of the budget; negative when it is overspent."""
        return self.seconds - self.spent()


def backoff(state: RetryCallState) -> float:
    """Seconds until the next attempt, which may go to another replica; `Replicas` keeps each one's Retry-After."""
    return wait_random_exponential(multiplier=FIRST_BACKOFF, max=LONGEST_BACKOFF)(state)


def backoff_with_retry_after(state: RetryCallState) -> float:
    """Seconds until the next attempt at the same replica, not before the time in its Retry-After."""
    error = state.outcome.exception() if state.outcome is not None else None
    retry_after = error.retry_after if isinstance(error, AttemptError) else None
    return max(backoff(state), retry_after or 0.0)


async def with_retries(
    once: Callable[[], Awaitable[Result]],
    budget: Budget,
    wait: Callable[[RetryCallState], float],
    count_retry: Callable[[], None],
) -> Result:
    """The first result of `once`.

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
        attempts = retrying.statistics["attempt_number"]
        raise UnansweredError(_reason(str(error), attempts, budget), attempts, error.retry_after) from error
    except NoReplicaError as error:
        attempts = retrying.statistics["attempt_number"] - 1  # the last one could not start
        raise UnansweredError(_reason(str(error), attempts, budget), attempts, error.opens_in) from error


def _reason(last: str, attempts: int, budget: Budget) -> str:
    early = ", and the next would start after them" if budget.left() > 0 else ""
    tried = counted(attempts, "attempt") if attempts else "no attempt"
    return f"{last} ({tried} in {budget.spent():.1f} s of the {budget.seconds:g} s of timeouts.retry{early})"
