"""Logprobs of completions under the weights in training, without gradient: what a sampler's are compared with."""

from collections.abc import Sequence

import torch

from distillkit.arrays import FloatArray, logprob_array
from distillkit.records import Rollout
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.training.policy import Policy


def own_logprobs(policy: Policy, rollouts: Sequence[Rollout], max_tokens: int) -> list[FloatArray]:
    """Of each completion's tokens, in micro-batches of `max_tokens` as training makes them, but without dropout.

    Training's own batch size stays as it is, whatever fits here, so that no number of a step depends on this.

    Raises:
        RunFailedError: if not even one completion fits into memory.
    """
    items = [PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids) for rollout in rollouts]
    batch = AdaptiveBatchSize(max_tokens, "tokens", "student.micro_batch_tokens")
    while True:
        try:
            return _computed(policy, items, batch.size)
        except torch.OutOfMemoryError as error:
            batch.shrink(error, max(map(len, items)))


@torch.no_grad()
def _computed(policy: Policy, items: Sequence[PromptAndResponse], max_tokens: int) -> list[FloatArray]:
    found: dict[int, FloatArray] = {}
    with policy.computing(), torch.compiler.set_stance("force_eager"):  # a program for this alone is not worth its time
        for group in policy.micro_batches(items, max_tokens):
            policy.causal_lm.device.raise_if_cancelled()
            logprobs = policy.logprobs([items[i] for i in group]).cpu()
            parts = logprobs.split([len(items[i].response_ids) for i in group])
            found |= {i: logprob_array(part.numpy()) for i, part in zip(group, parts, strict=True)}
    return [found[place] for place in range(len(items))]
