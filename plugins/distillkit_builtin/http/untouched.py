"""Whether a server samples from the distribution whose logprobs it reports, measured when a run starts.

Requests name every sampling field (`remote.request_fields`), so this is for what no request can say: a logits
processor, a proxy that changes requests, a field that is newer than this code. The test itself is
`distillkit.probe.sampling_test`.

The prompts are the model's own text, of which any server gives some: without context nearly any token may follow, and
behind a text that was begun again one token is nearly certain, which a penalty of the prompt's tokens moves.

Cost: a round is 4 prompts of 32 one-token completions at each replica, at once a prompt. One round, unless the evidence
that something is wrong is above zero after it: then more, up to 8, which the test allows for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import count

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.probe.sampling_test import SamplingTest, untouched_sampling
from distillkit.records import Failure, Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.remote.service_client import ServiceClient

TIMES, ROUNDS = 32, 8
"""How often a next token is sampled in a round, and how many rounds there are at most."""
TEXT_TOKENS = 16
Sampled = Callable[[Sequence[int], int, int], Awaitable[Rollout]]
"""`(prompt, seed, most tokens) -> completion` of one replica."""


async def require_untouched_sampling(
    client: ServiceClient,
    form: CompletionForm,
    model: str,
    start: Sequence[int],
    *,
    absent: Collection[str] = (),
) -> None:
    """Raise InputError if a replica's completions are not sampled at temperature 1 without anything beside it.

    `start` are any token ids that `model` has; what it writes behind them are the prompts. Replicas that are `absent`
    are not asked.
    """
    for root in (root for root in client.roots if root not in absent):
        test = await _measured(partial(_sampled, client, form, root, model), start, len(client.roots))
        if not test.untouched:
            how = form.start.untouched
            raise InputError(
                f"{root} samples from another distribution than the one whose logprobs it reports, although requests "
                f"name every sampling field: {test.finding}. {how[0].upper()}{how[1:]}"
            )


async def _measured(sampled: Sampled, start: Sequence[int], tests: int) -> SamplingTest:
    """The test of one replica, one of `tests`."""
    seeds = count()
    text = (await sampled(start, next(seeds), TEXT_TOKENS)).token_ids.tolist()
    again = [*text, *text, *text[: (len(text) + 1) // 2]]
    prompts = [[*start], [*start, *text[:4]], [*start, *text], again]
    groups: list[list[tuple[int, float]]] = [[] for _ in prompts]
    for _ in range(ROUNDS):
        for prompt, group in zip(prompts, groups, strict=True):
            found = await asyncio.gather(*(sampled(prompt, next(seeds), 1) for _ in range(TIMES)))
            group += [(int(one.token_ids[0]), float(one.logprobs[0])) for one in found]
        test = untouched_sampling(groups, tests=tests)
        if test.log_evidence <= 0.0 or not test.untouched:
            break
    return test


async def _sampled(
    client: ServiceClient, form: CompletionForm, root: str, model: str, prompt: Sequence[int], seed: int, tokens: int
) -> Rollout:
    """A completion of at most so many `tokens`."""
    request = SampleRequest(SampleKey("probe", 0, seed), token_ids(prompt), seed, SamplingParams(tokens))
    result = await client.post_to(root, form.path, form.payload(request, model))
    sampled = form.parse(result.value, request, model, 0)
    if isinstance(sampled, Failure):
        raise InputError(f"{root}: {sampled.reason}")
    return sampled
