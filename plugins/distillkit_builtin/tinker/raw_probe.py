"""Which logprobs a server reports with what it samples: the model's own, or those of the distribution sampled from.

Servers and their documentation contradict each other, so it is tried. A few tokens are sampled at a low and at a high
temperature (a peaked distribution hardly changes when sharpened, a flat one hardly when flattened) and with the most
probable token alone, and what came with them is compared with what the server says of the same ids behind the prompt.
"""

import numpy as np

from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, InputError, RunFailedError
from distillkit.types import SamplingParams
from distillkit_builtin.tinker.completions import Endpoint, checked_logprobs
from distillkit_builtin.tinker.scored_response import Asked
from distillkit_builtin.tinker.sdk_errors import lacks_request, refused_input, run_failed

PROBE_IDS = (1, 2, 3, 4)
"""Any prompt does: the server's samples are compared with its own scores."""
TOKENS = 4
PLAIN = SamplingParams(TOKENS)
ALTERED = (
    SamplingParams(TOKENS, temperature=0.3),
    SamplingParams(TOKENS, temperature=2.0),
    SamplingParams(TOKENS, top_k=1),
)
TOLERANCE = 0.5
"""Nats a token: far more than rounding between sampling and scoring, far less than a temperature makes."""
SEED = 0


async def reports_raw_logprobs(endpoint: Endpoint, where: str) -> bool:
    """Whether it reports the model's own logprobs, at temperature 1 before top-k, however it samples.

    Raises:
        InputError: if it does not even when it samples from the model's own distribution, or refuses to.
        RunFailedError: if it gives no response in time, or fails.
    """
    plain = await _difference(endpoint, PLAIN, where)
    if plain > TOLERANCE:
        raise InputError(
            f"{where}: the logprobs of what it samples at temperature 1 are {plain:.3g} nats from its own scores of "
            "the same tokens: the two are not of one model, and no run can be trained on them"
        )
    differences = [await _difference(endpoint, params, where) for params in ALTERED]
    return max(differences) <= TOLERANCE


async def _difference(endpoint: Endpoint, params: SamplingParams, where: str) -> float:
    """The largest over the sampled tokens, in nats."""
    try:
        sampled = await endpoint.sample(PROBE_IDS, params, SEED)
        ours = checked_logprobs("a probe", sampled.logprobs, len(sampled.ids))
        scored = await endpoint.score("a probe", PROBE_IDS, Asked(len(PROBE_IDS), token_ids(sampled.ids)))
    except AlignmentError as error:
        raise InputError(f"{where}: {error}") from error
    except TimeoutError as error:
        raise RunFailedError(
            f"{where}: a first completion: no response within {endpoint.seconds:g} s (timeouts.request)"
        ) from error
    except Exception as error:
        wrong = refused_input if lacks_request(error) else run_failed
        raise wrong(f"{where}: a first completion", error) from error
    return float(np.max(np.abs(ours - scored.logprobs), initial=0.0))
