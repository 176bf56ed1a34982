"""The protocol of a way to ask a server for completions with ids and logprobs; each kind of server has one."""

from typing import ClassVar, Protocol

from pydantic import JsonValue

from distillkit.records import Failure, Rollout
from distillkit.types import SampleRequest


class CompletionDialect(Protocol):
    """One way to ask a server for a completion."""

    path: ClassVar[str]
    """The endpoint's path, such as `/v1/completions`."""
    raw: ClassVar[str]
    """How a server is started that reports logprobs at temperature 1."""
    plain: ClassVar[str]
    """How a server is started that changes nothing about the sampling."""

    def payload(self, request: SampleRequest, model: str) -> dict[str, JsonValue]:
        """The request's JSON body; it names every field that could change a token or a logprob."""
        ...

    def parse(self, body: JsonValue, request: SampleRequest, model: str, version: int) -> Rollout | Failure:
        """The completion in the body of a server's HTTP response, as sampled by policy `version`.

        Raises:
            AlignmentError: unless ids and logprobs are all there, and are those of one completion.
        """
        ...
