"""Completions: sampled from, or echoed and scored by, a real model."""

import threading
from collections.abc import Iterable
from itertools import count

from distillkit.seeds import derive_seed
from distillkit.types import Rollout, SampleKey, SampleRequest, SamplingParams, token_ids
from distillkit_builtin.fireworks.loopback.deployments import Deployments
from distillkit_builtin.fireworks.loopback.messages import Answer, Body, Call, Refused, Route
from distillkit_builtin.fireworks.loopback.store import Store
from distillkit_builtin.fireworks.loopback.stream import Completion, Row, as_choice, as_stream
from distillkit_builtin.local.network import Network, PromptAndResponse
from distillkit_builtin.local.sampling import Generator
from distillkit_builtin.local.scoring import score_logprobs
from distillkit_builtin.local.teacher import eos_ids_of
from distillkit_builtin.tokenizer import HFTokenizer

KEY = SampleKey("wire", 0, 0)


class CompletionBody(Body):
    """What is asked for."""

    model: str
    prompt: tuple[int, ...]
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: str | tuple[str, ...] = ()
    seed: int | None = None
    echo: bool = False
    logprobs: bool = False
    stream: bool = False
    n: int = 1
    top_logprobs: int | None = None
    echo_last: int | None = None

    @property
    def params(self) -> SamplingParams:
        """As the local backend draws."""
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        return SamplingParams(self.max_tokens, self.temperature, self.top_p, self.top_k, stop)


class Completions:
    """The inference side of the service."""

    def __init__(self, store: Store, deployments: Deployments, context_length: int) -> None:
        """`context_length` is the longest prompt and completion."""
        self._store = store
        self._deployments = deployments
        self._context_length = context_length
        self._computing = threading.Lock()
        """Requests are computed one at a time: side by side, models this small only wait for one another."""
        self._numbers = count(1)

    def routes(self) -> Iterable[Route]:
        """What this part answers."""
        yield Route.to("POST", "/inference/v1/completions", self._complete)

    def _complete(self, call: Call) -> Answer:
        body = call.body(CompletionBody)
        serving = self._deployments.serving(body.model)
        network, base = serving or (self._store.frozen(body.model), body.model)
        self._require_served(body, network)
        number = next(self._numbers)
        with self._computing:
            completion = complete(network, self._store.tokenizer(base), body, number)
        completion = completion.misbehaving(call.effect)
        name = f"completion-{number}"
        if body.stream:
            return Answer(as_stream(completion, name), headers={"x-request-id": name})
        return Answer({"id": name, "choices": [as_choice(completion.text, completion.finish_reason)]})

    def _require_served(self, body: CompletionBody, network: Network) -> None:
        vocabulary = network.model.get_input_embeddings().get_parameter("weight").shape[0]
        if body.n != 1 or body.top_logprobs or body.echo_last:
            raise Refused(400, "the loopback service serves neither n > 1 nor top_logprobs nor echo_last")
        if not body.prompt or body.max_tokens < 1 or not all(0 <= token < vocabulary for token in body.prompt):
            raise Refused(400, f"needed: a prompt of ids below {vocabulary}, and max_tokens of at least 1")
        if len(body.prompt) + body.max_tokens > self._context_length:
            raise Refused(400, f"prompt and max_tokens exceed the context of {self._context_length} tokens")


def complete(network: Network, tokenizer: HFTokenizer, body: CompletionBody, number: int) -> Completion:
    """Sample, and score the prompt if it is to be echoed. Without a seed, the request's number is one."""
    seed = derive_seed(0, "loopback", number) if body.seed is None else abs(body.seed)
    drawn: list[Rollout] = []
    request = SampleRequest(KEY, token_ids(body.prompt), seed, body.params)
    Generator(network, tokenizer, eos_ids_of(network, tokenizer), 0).generate([request], drawn.append)
    rollout = drawn[0]
    ids = tuple(rollout.token_ids.tolist())
    logprobs = rollout.logprobs.tolist()
    if body.echo:
        ids, logprobs = (*body.prompt, *ids), [*_echoed(network, body.prompt), *logprobs]
    rows = None
    if body.logprobs:
        untouched = body.params.is_untouched
        rows = tuple(
            Row(tokenizer.show([token]), token, logprob, logprob if untouched else None)
            for token, logprob in zip(ids, logprobs, strict=True)
        )
    text = tokenizer.show(ids)
    return Completion(body.prompt, ids, body.echo, rows, text, rollout.finish_reason)


def _echoed(network: Network, prompt: tuple[int, ...]) -> list[float]:
    """One logprob a token of the prompt; nothing stands before the first, and the SDK takes no null."""
    if len(prompt) == 1:
        return [0.0]
    scored, _ = score_logprobs(network, [PromptAndResponse(token_ids(prompt[:1]), token_ids(prompt[1:]))])
    return [0.0, *scored.tolist()]
