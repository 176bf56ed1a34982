"""A loopback server of each kind that is given a student's weights, and what asks it: the fixtures of what all do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from loopback.openai.wire import COMPLETIONS, GENERATE, Serve

from builtin.http.serving import bodies
from builtin.sglang import pushes as sglang
from builtin.vllm import pushes as vllm
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer


@dataclass(frozen=True)
class Kind:
    """One kind of server."""

    serve: Serve
    flavor: Flavor
    sampler: Callable[..., Any]
    completes: str
    """Its endpoint for completions."""
    names_adapter: str
    """The field of a request that names the adapter."""
    load: str
    replace: str
    """Its endpoint that replaces all weights."""
    how_to_start: str

    def start(self, **options: Any) -> LoopbackServer:
        return self.serve(flavor=self.flavor, **options)

    def asked(self, server: LoopbackServer, field: str) -> list[Any]:
        """What a field held in the requests for completions, so far."""
        return [body.get(field) for body in bodies(server, self.completes)]


KINDS: dict[str, tuple[Any, ...]] = {
    "vllm": (Flavor(), vllm.sampler, COMPLETIONS, "model", vllm.LOAD, "/collective_rpc", "start vLLM with "),
    "sglang": (Flavor("sglang"), sglang.sampler, GENERATE, "lora_path", sglang.LOAD, sglang.REPLACE, "start SGLang wi"),
}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest, serve: Serve) -> Kind:
    """Of each."""
    return Kind(serve, *KINDS[request.param])
