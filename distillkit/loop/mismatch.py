"""A warning when sampler and trainer do not agree on what the policy is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from distillkit.records import StepResult

METRIC = "rollout/logprob_mismatch"


@dataclass(slots=True)
class MismatchMonitor:
    """Warns once past the threshold, and again only when it has doubled since."""

    threshold: float
    """Nats a token."""
    warn: Callable[[str], None]

    def look(self, results: Sequence[StepResult]) -> dict[str, float]:
        """The step's mismatch: of its first optimizer step alone, since later ones compare with weights that moved."""
        if not results:
            return {}
        first = {name: value for name, value in results[0].metrics.items() if name.startswith(METRIC)}
        self._judge(first)
        return first

    def _judge(self, metrics: Mapping[str, float]) -> None:
        value = metrics.get(METRIC, 0.0)
        if value <= self.threshold:
            return
        self.threshold = 2 * value
        self.warn(
            f"the sampler's logprobs are {value:.3f} nats a token from the trainer's ({METRIC}): advantages and ratios "
            "are off by as much. Does the sampler serve the student's own base model, in the same dtype, with the "
            "weights that were pushed? With train.max_steps_off_policy or weight_sync_interval, part is the policy "
            "that moved"
        )
