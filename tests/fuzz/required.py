"""What no user and no run may meet: messages that nobody can read, and values that cannot be."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from distillkit.errors import InputError
from distillkit.records import Failure, Rollout, Score

LONGEST_MESSAGE = 50_000
"""Characters of an error: the kinds of problems that are begun within 30,000, and what is around them."""
PROMPT, RESPONSE = [1, 2], [3, 4]


def require_short(error: Exception) -> None:
    """A message that is too long to be read, or cannot be printed, is a defect too."""
    said = str(error)
    assert len(said) <= LONGEST_MESSAGE, f"a message of {len(said)} characters: {said[:200]}"
    said.encode("utf-8", errors="backslashreplace")


def unless_refused(work: Callable[[], object]) -> object:
    """What a step gives; None where it refuses its input in few words."""
    try:
        return work()
    except InputError as error:
        require_short(error)
        return None


def require_possible(score: Score) -> None:
    assert score.echoed_ids is not None
    assert score.echoed_ids.tolist() == RESPONSE
    require_likely(score.logprobs.tolist())
    for name, array in score.arrays.items():
        assert array.shape == (len(RESPONSE), 2), name
        assert np.isfinite(array).all(), name


def require_likely(logprobs: Sequence[float]) -> None:
    assert all(math.isfinite(value) and value <= 0.01 for value in logprobs), logprobs


def require_sampled(sampled: Rollout | Failure) -> None:
    if isinstance(sampled, Failure):
        assert len(sampled.reason) < LONGEST_MESSAGE
        return
    require_likely(sampled.logprobs.tolist())
    assert (sampled.token_ids >= 0).all()
    sampled.text.encode()


def require_harmless(message: str, waits: float | None) -> None:
    assert message.isprintable(), repr(message)
    assert waits is None or (math.isfinite(waits) and waits >= 0)
