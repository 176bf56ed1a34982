"""What is likely not meant of how a run samples."""

from collections.abc import Iterator

from distillkit.config.run_config import RunConfig
from distillkit.roles.loss import Loss
from distillkit.types import SamplingParams


def sampling_warnings(config: RunConfig, sampling: SamplingParams) -> Iterator[str]:
    """What is wrong with each completion, or with all of a prompt together, though the run may go so."""
    if not (sampling.stop_ids or sampling.stop):
        yield (
            "nothing ends a completion but sampling.max_completion_tokens: neither the student's tokenizer nor its "
            "model's configs name an EOS id, and its chat template shows none; set sampling.stop_ids"
        )
    copies = config.sampling.completions_per_prompt
    if copies > 1 and (sampling.temperature == 0 or sampling.top_k == 1):
        greedy = "temperature=0" if sampling.temperature == 0 else "top_k=1"
        yield (
            f"sampling.completions_per_prompt={copies} with sampling.{greedy}: the {copies} completions of a prompt "
            "are the same, which costs more and teaches nothing more; set sampling.completions_per_prompt=1"
        )
    if not sampling.is_untouched:
        untouched = "sampling with temperature, top_p or top_k other than 1, 1, 0"
        yield f"{untouched}: {_touched(config.loss)} (docs/concepts.md)"


def _touched(loss: Loss) -> str:
    """What it means for a loss that completions are of another distribution than the policy's own."""
    if "logprobs" not in loss.reads():
        return (
            f"loss {loss.name!r} compares student and teacher at prefixes that another policy wrote than the one that "
            "is trained: what it minimises is averaged over those, which the student itself would write less or more "
            "often"
        )
    return "logprobs are those of the untouched policy, so the ratio's denominator is not the distribution that sampled"
