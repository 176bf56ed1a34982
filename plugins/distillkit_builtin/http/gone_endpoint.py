"""An endpoint that a server had when the run started, and has no more: it was started again, otherwise."""

from distillkit_builtin.http.probe import NOT_OFFERED
from distillkit_builtin.remote.results import RefusedError

NOT_FOUND = 404


class EndpointGoneError(Exception):
    """A request's endpoint is not there, or is switched off; `refusal` is what the server answered."""

    def __init__(self, path: str, refusal: RefusedError) -> None:
        """`path` is the endpoint's."""
        super().__init__(f"{refusal.root} has no {path} any more (it answered {refusal.status}: {refusal.message})")
        self.refusal = refusal


def require_endpoint(error: RefusedError, path: str, model: str) -> None:
    """Raise EndpointGoneError for a refusal of an endpoint; one of a `model` that the server lacks names that."""
    if error.status in NOT_OFFERED and not (error.status == NOT_FOUND and model in error.message):
        raise EndpointGoneError(path, error) from error
