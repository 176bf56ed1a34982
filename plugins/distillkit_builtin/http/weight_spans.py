"""Which weights sampled a completion, as an answer says it: the labels of spans of its tokens."""

from collections.abc import Sequence

from pydantic import BaseModel

from distillkit.errors import AlignmentError


class WeightSpan(BaseModel):
    """Output tokens `start` to `end`, this one excluded, and the label of the weights that sampled them."""

    version: str
    start: int
    end: int


def versions_of(spans: Sequence[WeightSpan], tokens: int, what: str) -> frozenset[str]:
    """The labels of all weights that sampled a completion's `tokens`; empty for a completion without tokens.

    Raises:
        AlignmentError: that begins with `what`, if a token's is not said.
    """
    end = 0
    for span in spans:
        if span.start != end or span.end < end:
            raise AlignmentError(f"{what}: weight_versions has tokens {span.start} to {span.end} behind token {end}")
        end = span.end
    if end != tokens:
        raise AlignmentError(f"{what}: weight_versions says whose {end} of {tokens} tokens are")
    return frozenset(span.version for span in spans)


def only_version(versions: frozenset[str], what: str) -> str:
    """The one label. Raises AlignmentError, that begins with `what`, for several."""
    if len(versions) != 1:
        raise AlignmentError(f"{what}: its tokens are of several weights ({', '.join(sorted(versions))})")
    return next(iter(versions))
