"""What a real server samples by our requests, or by ours with fields left out or changed."""

from collections.abc import Callable
from typing import Any

import httpx

from distillkit.arrays import token_ids
from distillkit.probe.sampling_test import SamplingTest, untouched_sampling
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.http.sampled import CompletionForm
from servers.server_process import ServerProcess

Change = Callable[[dict[str, Any]], dict[str, Any]]


def measured(server: ServerProcess, form: CompletionForm, change: Change | None = None) -> SamplingTest:
    """The test of 3 x 64 first tokens by our requests, changed where there is a `change`."""
    groups = []
    with httpx.Client(base_url=server.root, timeout=120) as client:
        for prompt in ([1, 2, 3, 4], [1, 2, 3, 4] * 4, [100, 200, 250]):
            group = []
            for seed in range(64):
                request = SampleRequest(SampleKey("r", 0, seed), token_ids(prompt), seed, SamplingParams(1))
                body: Any = form.payload(request, "smol")
                answer = client.post(form.path, json=body if change is None else change(body)).raise_for_status()
                found = form.parse(answer.json(), request, "smol", 0)
                assert isinstance(found, Rollout), found
                group.append((int(found.token_ids[0]), float(found.logprobs[0])))
            groups.append(group)
    return untouched_sampling(groups)
