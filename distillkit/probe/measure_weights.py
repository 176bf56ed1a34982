"""Whether what samples is the student: another sampler's logprobs beside those of the weights that are trained."""

from collections.abc import Sequence

import numpy as np

from distillkit.errors import PluginError
from distillkit.probe.figures import Disagreement
from distillkit.records import Rollout
from distillkit.roles.attribution import attribute_to
from distillkit.roles.student import ComputesLogprobs, Student


async def sampler_disagreement(student: Student, rollouts: Sequence[Rollout]) -> Disagreement | str | None:
    """How far the rollouts' logprobs are from the student's own; text: why that is not known.

    None: the student samples by itself. Raises PluginError for logprobs that do not fit the tokens.
    """
    if student.sampler is None:
        return None
    if not isinstance(student, ComputesLogprobs):
        return f"student {student.name!r} does not compute logprobs of given tokens"
    with attribute_to(student, "in logprobs()"):
        own = await student.logprobs(rollouts)
    if own is None:
        return f"student {student.name!r} does not compute them in this run, as with several ranks"
    shapes, expected = [each.shape for each in own], [rollout.token_ids.shape for rollout in rollouts]
    if shapes != expected:
        raise PluginError(f"student {student.name!r}: logprobs() of {expected} tokens has the shapes {shapes}")
    apart = [
        rollout.at_active(rollout.logprobs - mine).astype(np.float32)
        for rollout, mine in zip(rollouts, own, strict=True)
    ]
    return Disagreement.of(np.concatenate(apart))
