"""What a server gives of a teacher, found out once when the teacher is opened: a few short prefills.

Nothing in the protocol says how a server lines up logprobs with tokens, or whether it serves an option or ignores it.
So it is asked, and its answers are held against each other.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from distillkit.arrays import token_ids
from distillkit.context import Notify
from distillkit.errors import AlignmentError, InputError
from distillkit.tokenizer import Tokenizer, vocabulary_size
from distillkit.types import Message
from distillkit_builtin.tinker.prefill import LAST_N, TARGETS, Prefill
from distillkit_builtin.tinker.scored_response import ROUNDING, Asked, ResponseLogprobs, leading_nones, read_response
from distillkit_builtin.tinker.sdk import sdk_version, unlogged_refusals
from distillkit_builtin.tinker.sdk_errors import refused_input, status_of

PLAIN = "The sun rises in the east and sets in the west. Water is made of hydrogen and oxygen. Paris is in France."
"""Text that any language model finds far more probable than chance, if the ids that it is given mean this text."""
BETTER_THAN_CHANCE = 2.0
"""Nats a token by which it should: SmolLM2-135M does by 8.4, and by -4.1 to 0.3 where ids mean something else."""
PASSING = (401, 402, 403, 408, 409, 425, 429)
"""Statuses of 400 to 499 that say nothing of an option."""

Ask = Callable[[Sequence[int], Asked, bool], Awaitable[Any]]
"""`(ids, asked, last_n)` to the SDK's SampleResponse; raises what the SDK raises."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A short prompt and response that any chat model can score."""

    prompt: Sequence[int]
    response: Sequence[int]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """In the ids of `tokenizer`."""
        return cls(tokenizer.render([Message("user", "Tell me some facts.")], {}), tokenizer.encode(PLAIN))

    @property
    def asked(self) -> Asked:
        """The sampled tokens alone."""
        return Asked(len(self.prompt), token_ids(self.response))

    @property
    def ids(self) -> list[int]:
        """Prompt and response."""
        return [*self.prompt, *self.response]


async def find_prefill(ask: Ask, probe: Probe, tokenizer: Tokenizer, tell: Notify, *, last_n: bool) -> Prefill:
    """How the server lines up logprobs, and whether it computes those of a response alone.

    Args:
        ask: sends one request.
        probe: what is asked for.
        tokenizer: whose ids the probe has.
        tell: hears where plain text is no more probable than chance.
        last_n: whether the SDK can ask for a response's logprobs alone.

    Raises:
        InputError: if the server gives no logprobs, or not those of the tokens that it was sent.
    """
    answer = await _answer(ask, probe.ids, probe.asked, "the logprobs of a prompt")
    leading = _leading(answer, probe)
    known = _read(answer, probe.asked, leading)
    await _require_in_place(ask, probe, leading, known)
    _tell_of_chance(known, tokenizer, tell)
    if not last_n:
        return Prefill(leading, last_n=False)
    try:
        answer = await ask(probe.ids, probe.asked, True)
        found = read_response("the response alone", answer, probe.asked, leading)
    except AlignmentError:
        return Prefill(leading, last_n=False)
    except Exception as error:
        if not is_refusal(error):
            raise refused_input(f"asking for {LAST_N}", error) from error
        return Prefill(leading, last_n=False)
    return Prefill(leading, last_n=bool(np.abs(found.logprobs - known.logprobs).max() <= ROUNDING))


async def require_needs(ask: Ask, probe: Probe, prefill: Prefill, needs: Mapping[str, int], *, targets: bool) -> None:
    """Ask for what the run's loss `needs` besides; `targets`: whether the SDK can ask for logprobs of given ids.

    Raises:
        InputError: in one sentence, if the server or the SDK does not give that.
    """
    for name in ("topk", "at_ids"):
        amount = needs.get(name, 0)
        if not amount:
            continue
        if name == "at_ids" and not targets:
            raise InputError(
                f"the loss needs logprobs of given ids, which the Tinker SDK {sdk_version()} cannot ask for; install a "
                "newer one (0.38 can), or take another loss"
            )
        try:
            answer = await ask(probe.ids, _with(probe, name, amount), prefill.last_n)
            read_response("it", answer, _with(probe, name, amount), prefill.leading)
        except AlignmentError as error:
            raise InputError(f"{_not_given(name, amount)}: {error}") from error
        except Exception as error:
            raise refused_input(_not_given(name, amount), error) from error


async def gives_topk(ask: Ask, probe: Probe, prefill: Prefill) -> bool:
    """Whether the server gives most probable tokens at all, for whoever looks at them without needing them.

    Raises InputError if it fails otherwise than by a refusal.
    """
    asked = _with(probe, "topk", 1)
    try:
        with unlogged_refusals():
            answer = await ask(probe.ids, asked, prefill.last_n)
        read_response("it", answer, asked, prefill.leading)
    except AlignmentError:
        return False
    except Exception as error:
        if not is_refusal(error):
            raise refused_input("asking for the most probable tokens of each position", error) from error
        return False
    return True


def is_refusal(error: Exception) -> bool:
    """Whether a server says, or the SDK says of it, that it does not serve what was asked for."""
    status = status_of(error)
    refused = status is not None and 400 <= status < 500 and status not in PASSING
    return refused or (status is None and isinstance(error, RuntimeError))


async def _answer(ask: Ask, ids: Sequence[int], asked: Asked, what: str) -> Any:  # noqa: ANN401 - the SDK's SampleResponse
    try:
        return await ask(ids, asked, False)
    except Exception as error:
        raise refused_input(f"asking for {what}", error) from error


def _leading(answer: Any, probe: Probe) -> int:  # noqa: ANN401 - the SDK's SampleResponse
    try:
        return leading_nones(answer.prompt_logprobs, len(probe.ids))
    except AlignmentError as error:
        raise InputError(f"the server cannot score given tokens: {error}") from error


def _read(answer: Any, asked: Asked, leading: int) -> ResponseLogprobs:  # noqa: ANN401 - the SDK's SampleResponse
    try:
        return read_response("the server cannot score given tokens", answer, asked, leading)
    except AlignmentError as error:
        raise InputError(str(error)) from error


async def _require_in_place(ask: Ask, probe: Probe, leading: int, known: ResponseLogprobs) -> None:
    """Change the last token alone: in a causal model no logprob changes but its own.

    Raises InputError if another one does: then rows are not of the tokens that they are taken for.
    """
    other = replace(probe, response=[*probe.response[:-1], probe.response[0]])
    found = _read(await _answer(ask, other.ids, other.asked, "the logprobs of a prompt"), other.asked, leading)
    apart = np.abs(found.logprobs - known.logprobs)[:-1]
    if not apart.max(initial=0.0) <= ROUNDING:
        raise InputError(
            f"the logprob of token {int(apart.argmax())} of {len(apart) + 1} changes by {apart.max():.2f} nats with "
            "the last token: the server gives logprobs of other tokens than of those at their places"
        )


def _tell_of_chance(known: ResponseLogprobs, tokenizer: Tokenizer, tell: Notify) -> None:
    mean, chance = float(known.logprobs.mean()), -math.log(vocabulary_size(tokenizer))
    if mean < chance + BETTER_THAN_CHANCE:
        tell(
            f"plain English has {mean:.1f} nats a token here, and pure chance {chance:.1f}: either the model is "
            "untrained, or ids mean something else to it than to tokenizer_model, which nothing in the Tinker protocol "
            "can rule out; check tokenizer_model",
            "warning",
        )


def _with(probe: Probe, name: str, amount: int) -> Asked:
    if name == "topk":
        return replace(probe.asked, topk=amount)
    return replace(probe.asked, at_ids=np.repeat(token_ids(probe.response)[:, None], amount, axis=1))


def _not_given(name: str, amount: int) -> str:
    if name == "topk":
        return f"the server does not give the {amount} most probable tokens of each position, which the loss needs"
    return f"the server does not give logprobs of given ids ({TARGETS}), which the loss needs"
