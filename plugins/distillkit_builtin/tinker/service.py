"""The run's one connection to a Tinker server: what student and scorers share, closed after the last of them."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from distillkit.context import RunContext
from distillkit.errors import RunFailedError, is_interrupt
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.tinker.options import TinkerOptions
from distillkit_builtin.tinker.sdk import load_sdk, sdk_call
from distillkit_builtin.tinker.server_facts import ServerFacts, ask_server, base_model_of, read_key

UNLOAD = "/api/v1/unload_model"
CLOSE_SECONDS = 10.0
"""For the end of the session: SkyRL knows no such request, and a server that is gone does not hold up the run's end."""


@dataclass(slots=True)
class TinkerService:
    """One run at one server with one key. No client of the SDK exists before the server was asked how it is."""

    root: str
    key_variable: str
    facts: ServerFacts | None = None
    """From the first check on."""
    ended_by: Callable[[], BaseException | None] = lambda: None
    """What ended the run before its time, once it is closed."""
    _client: Any = None
    _key: Key | None = None

    def ask(self) -> ServerFacts:
        """What the server says of itself, asked once a run; blocking. Raises InputError if it does not respond."""
        self._key = read_key(self.key_variable)
        if self.facts is None:
            self.facts = ask_server(self.root, self._key)
        return self.facts

    def key(self) -> Key:
        """The key of its requests. Raises InputError if it is not set, or is none that the SDK takes."""
        if self._key is None:
            self._key = read_key(self.key_variable)
        return self._key

    def base_model_of(self, run_id: str) -> str | None:
        """The base model of a training run; None where the server does not say. Blocking."""
        return base_model_of(self.root, self.key(), run_id)

    def client(self) -> Any:  # noqa: ANN401 - the SDK's ServiceClient
        """The one client, which begins a session with its first request; blocking on the first call (an import)."""
        if self._client is None:
            self._client = load_sdk().ServiceClient(base_url=self.root, api_key=self.key().reveal())
        return self._client

    def unload(self, model_id: str) -> None:
        """Let the server free a model, if it says that it can; blocking. One that cannot frees it with the session.

        The SDK has no call for it, and SkyRL has room for so many models as it was started with.
        """
        if self.facts is None or not self.facts.has_path(UNLOAD):
            return
        headers = {"X-API-Key": self.key().reveal()}
        with contextlib.suppress(httpx.HTTPError):
            httpx.post(
                f"{self.root}{UNLOAD}",
                json={"model_id": model_id, "type": "unload_model"},
                headers=headers,
                timeout=CLOSE_SECONDS,
            )

    async def close(self) -> None:
        """End the session and its heartbeats, and say how the run ended: the session shows that to its owner.

        A server that does not know how to end one drops it by itself.
        """
        client, self._client = self._client, None
        if client is None:
            return
        error = self.ended_by()
        status = "success" if error is None else "interrupted" if is_interrupt(error) else "errored"
        session = getattr(client, "_session_holder", None)
        with contextlib.suppress(RunFailedError):
            if hasattr(client, "close"):
                await sdk_call("ending the session", CLOSE_SECONDS, lambda: client.close(status))
            elif session is not None:  # 0.25 ends none; this stops the heartbeats
                await sdk_call("ending the session", CLOSE_SECONDS, session.close)


def shared_service(run: RunContext, options: TinkerOptions) -> TinkerService:
    """The run's one service at this address with this key."""
    key = ("tinker", options.root, options.api_key_env)

    def make() -> TinkerService:
        return TinkerService(options.root, options.api_key_env, ended_by=lambda: run.ended_by)

    return run.share(key, make, TinkerService.close)
