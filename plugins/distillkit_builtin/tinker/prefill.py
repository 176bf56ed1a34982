"""One request for the logprobs of a prompt, and what of such a request a server serves."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distillkit_builtin.tinker.scored_response import Asked

LAST_N = "prompt_logprobs_last_n"
TARGETS = "target_prompt_logprobs"
SAMPLE_REQUEST = "SampleRequest"
"""What a server that describes itself calls such a request."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """How a server is asked for a response's logprobs, as `scorer_probe` found it out."""

    leading: int
    """How many Nones stand before the logprobs of a prompt: 1, or 0 where they begin with the second token's."""
    last_n: bool
    """Whether it computes those of the response alone, so that a prompt may come from its prefix cache."""


def submit(sdk: Any, client: Any, ids: Sequence[int], asked: Asked, *, last_n: bool) -> Any:  # noqa: ANN401 - the SDK's
    """The SDK's future of a `SampleResponse`. Every sampling field is named; what is sampled, one token, is ignored."""
    more: dict[str, Any] = {LAST_N: len(asked.response_ids)} if last_n else {}
    targets = asked.targets
    if targets is not None:
        more[TARGETS] = sdk.TensorData(data=targets, dtype="int64", shape=list(targets.shape))
    return client.sample(
        prompt=sdk.ModelInput.from_ints(list(ids)),
        num_samples=1,
        sampling_params=sdk.SamplingParams(max_tokens=1, seed=0, temperature=1.0, top_k=-1, top_p=1.0),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=asked.topk,
        **more,
    )


def knows(client: Any, option: str) -> bool:  # noqa: ANN401 - the SDK's SamplingClient
    """Whether the installed SDK can send this option of `sample`: 0.25 knows neither `LAST_N` nor `TARGETS`."""
    return option in inspect.signature(client.sample).parameters
