"""Whether each of a sampler's servers serves what the run samples from, and is not another one by mistake."""

from distillkit.context import Notify, RunContext
from distillkit.errors import InputError
from distillkit_builtin.remote.service_client import ServiceClient
from distillkit_builtin.sglang.server_info import KEPT, PATH, base_model, server_info

UNSEEDED = (
    "completions do not follow from the run's seed, so another run samples others: SGLang takes the seeds of requests "
    "with --enable-deterministic-inference alone"
)


async def require_usable(client: ServiceClient, model: str, run: RunContext, tell: Notify) -> str | None:
    """The first server's version.

    Raises:
        InputError: for a server that marks what it samples, serves another model than `model`, or not at the length
            that the run needs.
    """
    found = []
    for root in client.roots:
        info = server_info((await client.get_from(root, PATH)).value, root)
        if info.watermarks:
            raise InputError(
                f"{root} marks all that it samples (--watermark-default-enabled, --watermark-enforce-all), which is "
                "another distribution than the one whose logprobs it reports; start SGLang without"
            )
        if not info.enable_deterministic_inference:
            tell(f"{root}: {UNSEEDED}")
        served = base_model(info, (await client.get_from(root, "/v1/models")).value, root, model)
        found.append(info)
        most = info.most_tokens(served.max_model_len)
        if run.plan is None or most is None or not run.plan.completions:
            continue
        longest = run.plan.longest_prompt + run.plan.sample_tokens // run.plan.completions
        if longest > most:
            raise InputError(
                f"prompt and completion take up to {longest} tokens, and {served.id} at {root} takes {most}; start "
                f"SGLang with --context-length {longest + KEPT} or more and memory for as many "
                "(--mem-fraction-static), or lower sampling.max_completion_tokens"
            )
    return found[0].version
