"""How far the logprobs that the sampler reported are from those that training computes for the same tokens."""

from collections.abc import Mapping

import torch
from torch import Tensor


class MismatchMeter:
    """Sums over one optimizer step, kept on the device until they are read."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._seen: list[Tensor] = []

    def add(self, logprobs: Tensor, inputs: Mapping[str, Tensor]) -> None:
        """Take logprobs [N] of a micro-batch before the step; losses without `sampling_logprobs` are left out."""
        sampled = inputs.get("sampling_logprobs")
        if sampled is None:
            return
        apart = (logprobs.detach() - sampled)[inputs["weights"] != 0].abs()
        if apart.numel():
            self._seen.append(torch.stack([apart.sum(), apart.max(), torch.full_like(apart[0], apart.numel())]))

    def read(self) -> dict[str, float]:
        """Mean and largest absolute difference in nats a token since the last reading; nothing where none was seen."""
        seen, self._seen = self._seen, []
        if not seen:
            return {}
        sums = torch.stack(seen)
        mean = float(sums[:, 0].sum() / sums[:, 2].sum())
        return {"rollout/logprob_mismatch": mean, "rollout/logprob_mismatch_max": float(sums[:, 1].max())}
