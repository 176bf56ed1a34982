"""The section `train` of a config: the loop, and what a step's loss is divided by."""

from typing import Literal

from pydantic import Field

from distillkit.config.sections import Section
from distillkit.roles.weighting import Weighting

Normalization = Literal["token_mean", "sequence_mean", "route_mean", "sum"]
"""What the summed loss of an optimizer step is divided by."""


class TrainConfig(Section):
    """The loop: how many rows a step, how many steps, what is done every so often."""

    prompt_groups_per_step: int = Field(8, ge=1, description="Rows (each with its completions) in a step.")
    max_steps: int | None = Field(
        None, ge=1, description="Stop after this many steps; null: when the rows are used up."
    )
    num_substeps: int = Field(
        1, ge=1, description="Optimizer steps on the rollouts of one step; the completions of a row stay together."
    )
    normalization: Normalization = Field(
        "token_mean",
        description="What the summed loss is divided by, over a whole optimizer step: its tokens; each completion's "
        "tokens and the completions; each route's tokens and the routes; nothing.",
    )
    weightings: tuple[Weighting, ...] = Field(
        (), description="How much each token counts: weightings, multiplied with each other and the normalization."
    )
    eval_every: int = Field(0, ge=0, description="Evaluate every so many steps; 0: only before and after.")
    save_every: int = Field(
        0,
        ge=0,
        description="Write a checkpoint every so many steps, and after the last; 0: as `save_every_minutes` says.",
    )
    save_every_minutes: float = Field(
        10.0,
        ge=0,
        description="Write a checkpoint, too, once so many minutes have passed since the last one; 0: never by time. "
        "No number depends on when that is: it waits for a step after which weights are published.",
    )
    keep_last: int = Field(2, ge=1, description="How many checkpoints are kept.")
    sample_every: int = Field(
        1, ge=0, description="Write completions to samples.jsonl every so many steps and at evaluations; 0: never."
    )
    samples_per_route: int = Field(2, ge=1, description="How many completions of each route are written then.")
    samples_topk: int = Field(
        5,
        ge=0,
        description="How many of the most probable tokens are written with each of theirs, where a loss or weighting "
        "asks for top-K; 0: none.",
    )
    route_gradients_every: int = Field(
        0,
        ge=0,
        description="Measure each route's gradient, and the angle between routes', every so many steps, which takes "
        "as long as training once more; 0: never.",
    )
    max_steps_off_policy: int = Field(
        0,
        ge=0,
        description="k: step s (counted from 1) trains completions of policy max(0, s-1-k), sampled while earlier "
        "steps train.",
    )
    weight_sync_interval: int = Field(
        1,
        ge=1,
        description="Publish the weights to the sampler every so many steps, and after the last; steps between train "
        "completions of the policy that was published last.",
    )
    max_bad_steps: int = Field(
        3,
        ge=0,
        description="The run fails after more optimizer steps in a row than this were refused, because a logprob, "
        "advantage, loss or gradient was not finite.",
    )
    warn_logprob_mismatch: float = Field(
        0.1,
        gt=0,
        description="Warn when the sampler's logprobs are further than this from the trainer's, in nats a token.",
    )
    max_failed_fraction: float = Field(
        0.1, ge=0, le=1, description="The run fails when more of the rows admitted so far than this have failed."
    )
