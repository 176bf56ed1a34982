"""Completions: sampled from, or echoed and scored by, a real model."""

import threading
from collections import Counter
from collections.abc import Iterable
from itertools import count

from distillkit.seeds import derive_seed
from distillkit_loopback.fireworks.deployments import Deployments
from distillkit_loopback.fireworks.inference import CompletionBody, complete
from distillkit_loopback.fireworks.messages import Call, Route
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.fireworks.stream import as_object, as_stream
from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.transport.messages import Response
from distillkit_loopback.transport.routes import Refused


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
        self._unseeded: Counter[tuple[str, tuple[int, ...]]] = Counter()
        """How often each model was given each prompt without a seed."""

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        yield Route.to("POST", "/inference/v1/completions", self._complete)

    def _complete(self, call: Call) -> Response:
        body = call.body(CompletionBody)
        model = self._deployments.serving(body.model) or self._store.frozen(body.model)
        self._require_possible(body, model)
        body = body.model_copy(update={"max_tokens": min(body.max_tokens, self._context_length - len(body.prompt))})
        with self._computing:
            completions = complete(model, body, self._seed(body))
        completions = [completion.distorted(call.fault) for completion in completions]
        name = f"completion-{next(self._numbers)}"
        headers = {"x-request-id": call.request.headers.get("x-request-id", name)}
        send = as_stream if body.stream else as_object
        return Response(send(completions, name), headers=headers)

    def _seed(self, body: CompletionBody) -> int:
        """The request's own, or one that depends on how often this model was given this prompt before.

        Not on the order in which different prompts arrive, nor on the model's name, which may hold a run's random id:
        so a run that sends no seeds samples the same completions every time.
        """
        if body.seed is not None:
            return abs(body.seed)
        key = (body.model, body.prompt)
        self._unseeded[key] += 1
        return derive_seed("loopback", self._unseeded[key], *body.prompt)

    def _require_possible(self, body: CompletionBody, model: CausalLM) -> None:
        vocabulary = model.vocabulary
        if body.not_computed:
            raise Refused(400, f"the loopback service does not compute {body.not_computed}")
        if body.top_logprobs and not body.logprobs:
            raise Refused(400, "top_logprobs needs logprobs")
        if not body.prompt or body.max_tokens < 1 or not all(0 <= token < vocabulary for token in body.prompt):
            raise Refused(400, f"needed: a prompt of ids below {vocabulary}, and max_tokens of at least 1")
        room = self._context_length - len(body.prompt)
        if room < (body.max_tokens if body.context_length_exceeded_behavior == "error" else 1):
            raise Refused(400, f"prompt and max_tokens exceed the context of {self._context_length} tokens")
