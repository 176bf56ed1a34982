"""The Tinker SDK with no server behind it, as far as scoring goes: what 0.25 and 0.38 return, right and wrong."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from distillkit.types import SamplingParams
from distillkit_loopback.openai.categorical import CategoricalModel


class ApiFuture:
    """What 0.38 returns: a future inside."""

    def __init__(self, inner: "Future[Any]") -> None:
        self._inner = inner

    def future(self) -> "Future[Any]":
        return self._inner


class StatusError(Exception):
    """As the SDK's `APIStatusError`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status


@dataclass
class FakeServer:
    """How the server behind the SDK behaves, and what it was sent."""

    old_sdk: bool = False
    leading: int = 1
    last_n: str = "served"
    """Or `ignored`, as by SkyRL; `refused` by a 422; `wrong`: other numbers."""
    topk: str = "served"
    """Or `refused`."""
    targets: str = "served"
    """Or `ignored`."""
    shift: int = 0
    """How many places before theirs its logprobs stand."""
    model: CategoricalModel = field(default_factory=CategoricalModel)
    errors: list[BaseException | str] = field(default_factory=list)
    """What the next prefills end with; `hang`: with nothing."""
    tempered: bool = False
    """Whether the logprobs of what it samples are those at the temperature that it samples at."""
    refuses: StatusError | None = None
    """What creating a client ends with."""
    spoil: Any = None
    """Makes another answer of a right one."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    clients: list[dict[str, Any]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    cancelled: int = 0

    def sdk(self) -> Any:
        return SimpleNamespace(
            ServiceClient=lambda **options: ServiceClient(self, options),
            ModelInput=SimpleNamespace(from_ints=lambda ids: list(ids)),
            SamplingParams=lambda **params: params,
            TensorData=lambda **fields: SimpleNamespace(**fields, sparse_crow_indices=None),
        )

    def wrapped(self, value: Any) -> Any:
        future: Future[Any] = Future()
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)
        return future if self.old_sdk else ApiFuture(future)

    def answer(self, ids: Sequence[int], asked: dict[str, Any]) -> Any:
        last_n, k = asked.get("prompt_logprobs_last_n"), asked["topk_prompt_logprobs"]
        targets = asked.get("target_prompt_logprobs")
        if last_n is not None and self.last_n == "refused":
            raise StatusError(422, "prompt_logprobs_last_n: Extra inputs are not permitted")
        if last_n is not None and self.last_n == "ignored":
            raise RuntimeError("prompt_logprobs_last_n=3 was requested but ...; it may predate this feature")
        if k and self.topk == "refused":
            raise ValueError("Error retrieving result: Error code: 400 - not supported by the JAX backend")
        rows = [self.model.distribution(previous) for previous in ids[:-1]]
        values: list[float | None] = [float(row[token]) for row, token in zip(rows, ids[1:], strict=True)]
        values = [*values[self.shift :], *values[-1:] * self.shift]
        skipped = 0 if last_n is None else len(values) - last_n
        values[:skipped] = [None] * skipped
        if last_n is not None and self.last_n == "wrong":
            values[skipped:] = [float(value or 0.0) - 1.0 for value in values[skipped:]]
        top = [[(int(i), float(row[i])) for i in np.argsort(-row)[:k]] for row in rows] if k else None
        found = None
        if targets is not None and self.targets == "served":
            table = np.array(targets.data).reshape(targets.shape)
            at = [[0.0 if i < 0 else float(row[i]) for i in ids_] for row, ids_ in zip(rows, table, strict=True)]
            found = SimpleNamespace(data=np.ravel(at), shape=targets.shape, sparse_crow_indices=None)
        lead: list[None] = [None] * self.leading
        given = SimpleNamespace(
            prompt_logprobs=[*lead, *values],
            topk_prompt_logprobs=None if top is None else [*lead, *top],
            target_prompt_logprobs=found,
        )
        return given if self.spoil is None else self.spoil(given)

    def prefill(self, ids: Sequence[int], asked: dict[str, Any]) -> Any:
        self.asked.append({"ids": list(ids), **asked})
        error = self.errors.pop(0) if self.errors else None
        if error is None:
            try:
                answer = self.answer(ids, asked)
            except (StatusError, RuntimeError, ValueError) as raised:
                return self.wrapped(raised)
            return self.later(answer)
        if error == "hang":
            future: Future[Any] = Future()
            future.add_done_callback(self.count_cancelled)
            return future if self.old_sdk else ApiFuture(future)
        return self.wrapped(error)

    def completion(self, prompt: Sequence[int], asked: dict[str, Any]) -> Any:
        """What 0.38 and 0.25 return for a completion."""
        temperature = asked["temperature"]
        params = SamplingParams(
            asked["max_tokens"],
            temperature=temperature,
            top_p=asked["top_p"],
            top_k=max(0, asked["top_k"]),
            stop_ids=tuple(asked["stop"]),
        )
        found = self.model.sample(prompt, asked["seed"], params)
        before = [prompt[-1], *found.ids[:-1]]
        logprobs = []
        for previous, token in zip(before, found.ids, strict=True):
            row = self.model.distribution(previous) / (temperature if self.tempered else 1.0)
            logprobs.append(float(row[token] - np.log(np.exp(row).sum())))
        sequence = SimpleNamespace(stop_reason=found.finish_reason, tokens=list(found.ids), logprobs=logprobs)
        return self.later(SimpleNamespace(sequences=[sequence]))

    def later(self, answer: Any) -> Any:
        """After the loop had its turn, so that requests are under way together."""
        future: Future[Any] = Future()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

        def settle() -> None:
            self.in_flight -= 1
            if not future.cancelled():
                future.set_result(answer)

        asyncio.get_running_loop().call_later(0.001, settle)
        return future if self.old_sdk else ApiFuture(future)

    def count_cancelled(self, future: "Future[Any]") -> None:
        self.cancelled += future.cancelled()


class ServiceClient:
    def __init__(self, server: FakeServer, options: dict[str, Any]) -> None:
        self.server, self.options = server, options

    def create_sampling_client(
        self, model_path: str | None = None, base_model: str | None = None, retry_config: Any = None
    ) -> Any:
        if self.server.refuses is not None:
            return self.server.wrapped(self.server.refuses)
        self.server.clients.append({"model_path": model_path, "base_model": base_model})
        cls = OldSamplingClient if self.server.old_sdk else SamplingClient
        client = cls(self.server)
        return client if self.server.old_sdk else self.server.wrapped(client)

    def close(self, status: str) -> Any:
        self.server.closed.append(status)
        return self.server.wrapped(None)


class SamplingClient:
    """Of 0.38."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server

    def sample(
        self,
        prompt: list[int],
        num_samples: int,
        sampling_params: dict[str, Any],
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        target_prompt_logprobs: Any = None,
        prompt_logprobs_last_n: int | None = None,
    ) -> Any:
        if not include_prompt_logprobs:
            return self.server.completion(prompt, sampling_params)
        asked = {
            "num_samples": num_samples,
            "params": sampling_params,
            "include_prompt_logprobs": include_prompt_logprobs,
            "topk_prompt_logprobs": topk_prompt_logprobs,
            "target_prompt_logprobs": target_prompt_logprobs,
            "prompt_logprobs_last_n": prompt_logprobs_last_n,
        }
        return self.server.prefill(prompt, asked)


class OldSamplingClient:
    """Of 0.25."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server

    def sample(
        self,
        prompt: list[int],
        num_samples: int,
        sampling_params: dict[str, Any],
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
    ) -> Any:
        if not include_prompt_logprobs:
            return self.server.completion(prompt, sampling_params)
        asked = {
            "num_samples": num_samples,
            "params": sampling_params,
            "include_prompt_logprobs": include_prompt_logprobs,
            "topk_prompt_logprobs": topk_prompt_logprobs,
        }
        return self.server.prefill(prompt, asked)
