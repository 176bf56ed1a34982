"""What comes of a request to a service: a result, or one of two exceptions that a backend turns into a `Failure`.

`AttemptError` and its kind end one attempt and stay inside this folder; a garbled body counts among them, since what
garbles it is a proxy more often than the service, so it ends as an `UnansweredError` like all that is tried again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit_builtin.remote.request_fields import refused_field


@dataclass(frozen=True, slots=True)
class Result:
    """The response of a service to a request."""

    root: str
    """The replica that gave it."""
    value: JsonValue
    """Its body. JSON may hold NaN and infinities; of a control call also plain text, or None where it was empty."""
    seconds: float
    """From sending to having the whole body, of the attempt that succeeded."""


class RefusedError(Exception):
    """The service understood and refused. Such a request is never tried again."""

    def __init__(self, root: str, status: int, message: str) -> None:
        """`message` is the server's own, cut to 500 characters, without the key."""
        super().__init__(f"{root}: HTTP {status}: {message}")
        self.root = root
        self.status = status
        self.message = message


class UnansweredError(Exception):
    """No attempt within `timeouts.retry` got a result."""

    def __init__(self, reason: str, attempts: int, retry_after: float | None) -> None:
        """`reason` names the last failure, its replica, the attempts and the seconds that they took.

        `retry_after`: seconds from now, where the service said so.
        """
        super().__init__(reason)
        self.reason = reason
        self.attempts = attempts
        self.retry_after = retry_after


class AttemptError(Exception):
    """One attempt got no result; another one may."""

    def __init__(
        self, root: str, what: str, *, overload: bool = False, broken: bool = True, retry_after: float | None = None
    ) -> None:
        """`overload`: fewer requests at once may help. `broken`: the replica, not the request rate, is at fault."""
        super().__init__(f"{root}: {what}")
        self.root = root
        self.what = what
        self.overload = overload
        self.broken = broken
        self.retry_after = retry_after


class GarbledError(AttemptError):
    """A body that is not what it says it is, under a status that says all is well."""


class NoReplicaError(Exception):
    """No replica is available before the budget is spent."""

    def __init__(self, reason: str, opens_in: float | None) -> None:
        """`opens_in`: seconds until one is available, where that is known."""
        super().__init__(reason)
        self.opens_in = opens_in


def answered(error: RefusedError) -> str:
    """What a service answered, and what to do where it refuses a field that it does not know."""
    return f"{error.root} answered {error.status}: {error.message}{refused_field(error.message)}"


@contextmanager
def error_context(who: str) -> Iterator[None]:
    """Whose server is meant, in front of what is wrong with it: a config may name many.

    Raises:
        InputError: that begins with `who`, for an InputError inside the block, or a request that was refused or got no
            response.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{who}: {error}") from error
    except RefusedError as error:
        raise InputError(f"{who}: {answered(error)}") from error
    except UnansweredError as error:
        raise InputError(f"{who}: {error.reason}") from error
