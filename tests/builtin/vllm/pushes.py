"""What the tests of sampler `vllm` share: asking it, and what the loopback server makes of pushed weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from builtin.http.serving import truth
from distillkit.records import Rollout, Weights
from distillkit.testing import make_request
from distillkit_builtin.vllm.sampler import VllmSampler
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer
from distillkit_loopback.transport.messages import Request

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


def sampler(*servers: LoopbackServer, **options: Any) -> VllmSampler:
    url: Any = servers[0].url if len(servers) == 1 else [server.url for server in servers]
    return VllmSampler(base_url=url, **options)


async def sample(plugin: VllmSampler, count: int = 4) -> list[Any]:
    requests = [make_request(sample=i, max_tokens=6) for i in range(count)]
    found = [outcome async for outcome in plugin.sample(requests)]
    assert len(found) == count
    return sorted(found, key=lambda outcome: outcome.request.key)


def require_sampled_by(found: Sequence[Any], model: CategoricalModel, version: int) -> None:
    for rollout in found:
        assert isinstance(rollout, Rollout)
        assert rollout.policy_version == version
        wanted = truth(rollout.token_ids.tolist(), rollout.request.prompt_ids.tolist(), model)
        np.testing.assert_array_equal(rollout.logprobs, wanted)


def with_weights(weights: Weights) -> CategoricalModel:
    """What the loopback server makes of an adapter, or of whole weights."""
    assert weights.path is not None
    return (CategoricalModel().adapted if weights.format == "peft" else CategoricalModel().reweighted)(weights.path)


def with_weights_on(pushed: Sequence[Weights]) -> CategoricalModel:
    """The loopback's weights move what was there before."""
    model = CategoricalModel()
    for weights in pushed:
        assert weights.path is not None
        model = model.reweighted(weights.path)
    return model


def scores_prompts(request: Request) -> bool:
    return request.fields.get("prompt_logprobs") is not None
