"""Whether each of a sampler's servers serves what the run samples from, and is not another one by mistake."""

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit_builtin.http.models import find_model, served_models
from distillkit_builtin.pushed.adapter_push import AdapterPush
from distillkit_builtin.remote.service_client import ServiceClient

PAUSED_SECONDS = 5.0
"""Within which a server is to say whether it is paused; one without development endpoints does not know."""


async def require_served(client: ServiceClient, model: str, run: RunContext) -> None:
    """Raise InputError for a server that is paused, does not serve `model`, or not at the length that the run needs."""
    for root in client.roots:
        paused = await client.get_once(root, "/is_paused", PAUSED_SECONDS)
        if paused is not None and isinstance(paused.value, dict) and paused.value.get("is_paused") is True:
            raise InputError(
                f"{root} is paused, as a run leaves it that was killed while it loaded weights, and answers nothing; "
                f"end that by: curl -X POST {root}/resume"
            )
        result = await client.get_from(root, "/v1/models")
        served = find_model([each for each in served_models(result.value, root) if each.parent is None], model, root)
        if run.plan is None or served.max_model_len is None or not run.plan.completions:
            continue
        longest = run.plan.longest_prompt + run.plan.sample_tokens // run.plan.completions
        if longest > served.max_model_len:
            where = "" if len(client.roots) == 1 else f" at {root}"
            raise InputError(
                f"prompt and completion take up to {longest} tokens, and {served.id} is served{where} with "
                f"--max-model-len {served.max_model_len}; raise that, or lower sampling.max_completion_tokens"
            )


async def require_same_base(client: ServiceClient, weight_push: AdapterPush) -> None:
    """Raise RunFailedError if a server says that its base model has other weights than when the run started.

    One without development endpoints does not say it, nor does anybody ask it whose answers never said it.
    """
    for root in weight_push.base_versions:
        info = await client.get_once(root, "/weight_info", PAUSED_SECONDS)
        version = info.value.get("weight_version") if info is not None and isinstance(info.value, dict) else None
        if isinstance(version, str):
            weight_push.sampled_it_all(root, frozenset({version}))
