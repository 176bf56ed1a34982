"""One optimizer step on a batch: AdamW, gradients accumulated over micro-batches, clipped."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import get_scheduler

from distillkit.context import Notify
from distillkit.errors import BadStepError, RunFailedError
from distillkit.seeds import derive_seed
from distillkit.training_data import Batch, StepResult
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.batches.micro_batching import balanced_shares
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.model.sharding import full_tensor
from distillkit_builtin.local.training.chunked_loss import ChunkedLoss, chunk_size
from distillkit_builtin.local.training.collectives import sum_gradients
from distillkit_builtin.local.training.counted_positions import CountedPositions
from distillkit_builtin.local.training.logprob_mismatch import Mismatch, MismatchMeter, mismatch_metrics
from distillkit_builtin.local.training.micro_batch_loss import items_of, reads_logprobs_alone, sampled_loss
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer_checkpoint import (
    SavedTrainer,
    read_checkpoint,
    take_checkpoint,
    trainer_tensors,
    write_checkpoint,
)
from distillkit_builtin.local.training.unknown_mass import UnknownMass, UnknownMassMeter, unknown_mass_metrics

PLACEHOLDER = PromptAndResponse(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
"""What a rank computes that has nothing left, where the others cannot compute without it."""
FALLING = ("linear", "cosine")
"""Schedules whose rates depend on how many steps there are in all."""


@dataclass(frozen=True, slots=True)
class OptimizerOptions:
    """The options of the optimizer and its schedule."""

    learning_rate: float
    schedule: str
    warmup_steps: int
    total_steps: int
    weight_decay: float
    betas: tuple[float, float]
    grad_clip_norm: float
    """0: not clipped."""
    micro_batch_tokens: int
    seed: int
    """Seed of dropout's random numbers."""


@dataclass(frozen=True, slots=True)
class GradientShare:
    """What was found while the gradient of a share of a batch was computed."""

    loss: float
    """The sum of `weights * loss`."""
    mismatch: Mismatch
    unknown: UnknownMass


def step_result(shares: Sequence[GradientShare], applied: Mapping[str, float]) -> StepResult:
    """The result of one step whose gradient was computed in these shares; `applied` are the metrics of applying it."""
    loss = math.fsum(share.loss for share in shares)
    measured = {
        **mismatch_metrics([share.mismatch for share in shares]),
        **unknown_mass_metrics([share.unknown for share in shares]),
    }
    return StepResult({"train/loss": loss, **measured, **applied})


class Trainer:
    """The optimizer of one policy."""

    def __init__(self, policy: Policy, options: OptimizerOptions, chunked: ChunkedLoss | None = None) -> None:
        """Start with moments of zero, at the schedule's first step.

        `chunked` computes losses that read distributions, or train the head; None: by the device's defaults, and
        without teachers.
        """
        self.policy = policy
        self.options = options
        self.optimizer = torch.optim.AdamW(
            policy.trained.values(),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=policy.causal_lm.device.device.type == "cuda",
        )
        self.micro_batch = AdaptiveBatchSize(options.micro_batch_tokens, "tokens", "student.micro_batch_tokens")
        self.chunked = chunked or ChunkedLoss(chunk_size(None, policy.causal_lm.device.device))
        self._mismatch = MismatchMeter()
        self.scheduler = get_scheduler(
            options.schedule,
            self.optimizer,
            num_warmup_steps=options.warmup_steps,
            num_training_steps=options.total_steps,
        )

    def report(self, notify: Notify) -> None:
        """Pass on what became smaller since the last call; from the event loop's thread, where sinks live."""
        for adaptive in (self.chunked.chunk, self.micro_batch):
            adaptive.report(notify)

    def step(self, batch: Batch) -> StepResult:
        """Sum `weights * loss` over the batch's tokens, and move the weights once. Raises BadStepError."""
        return step_result([self.compute_gradient(batch)], self.apply_gradient())

    def compute_gradient(self, batch: Batch, parts: int | None = None) -> GradientShare:
        """The batch's gradient, for `apply_gradient`; in smaller parts after an out-of-memory error.

        Where weights are sharded, ranks compute together: each must take as many `parts`, and none can try again.

        Raises:
            BadStepError: if the loss is not finite.
            RunFailedError: if not even one completion fits into memory.
        """
        while True:
            self._mismatch, self.chunked.unknown = MismatchMeter(), UnknownMassMeter()
            self.optimizer.zero_grad(set_to_none=True)
            try:
                loss = self.accumulate_gradient(batch, parts)
                return GradientShare(loss, self._mismatch.read(), self.chunked.unknown.read())
            except torch.OutOfMemoryError as error:
                if parts is not None:
                    raise RunFailedError(
                        f"{str(error).partition('.')[0]}; lower student.micro_batch_tokens, now {self.micro_batch.size}"
                    ) from error
                longest = max(len(datum.prompt_ids) + len(datum.response_ids) for datum in batch.datums)
                self.micro_batch.shrink(error, longest)

    def accumulate_gradient(self, batch: Batch, parts: int | None = None) -> float:
        """Add the batch's gradient to what `apply_gradient` will use; returns its sum of `weights * loss`."""
        total = 0.0
        items = items_of(batch.datums)
        with self._own_random_numbers():
            if parts is None:
                groups = self.policy.micro_batches(items, self.micro_batch.size)
            else:
                groups = balanced_shares(list(map(len, items)), parts)
            for group in groups:
                self.policy.causal_lm.device.raise_if_cancelled()
                total += self._backward(replace(batch, datums=tuple(batch.datums[i] for i in group)))
        return total

    def apply_gradient(self) -> dict[str, float]:
        """Move the weights once by the accumulated gradient, which stays; returns norm and learning rate."""
        grad_norm = self._clip()
        learning_rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        return {"train/grad_norm": grad_norm, "train/learning_rate": float(learning_rate)}

    def apply_summed_gradient(self) -> dict[str, float]:
        """`apply_gradient` with the gradients of all ranks, which do the same at the same time."""
        if self.policy.sharded is None:  # else they were summed with each backward pass
            sum_gradients(self.policy.trained.values())
        return self.apply_gradient()

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Dropout depends on the run's seed and the step alone, also after a resume."""
        device = self.policy.causal_lm.device.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.options.seed, "dropout", self.scheduler.last_epoch))
            yield

    def _backward(self, part: Batch) -> float:
        """Add the gradient of a micro-batch; returns its sum of `weights * loss`."""
        device = self.policy.causal_lm.device.device
        counted = CountedPositions.of(part.datums, device) if part.datums else None
        if not counted:
            with self.policy.training():
                torch.autograd.backward(self.policy.logprobs([PLACEHOLDER]).sum() * 0.0)  # the others wait for this
            return 0.0
        in_chunks = not (reads_logprobs_alone(part.reads) and self.policy.causal_lm.head_is_frozen)
        routes = self.chunked.routes(part, counted) if in_chunks else ()  # teachers compute as they do when they score
        with self.policy.training():
            if in_chunks:
                found = self.chunked.loss(self.policy, part, counted, routes)
            else:
                found = sampled_loss(self.policy, part, counted)
            self._mismatch.add(found.logprobs, counted.sampling_logprobs)
            value = float(found.total.detach())
            if not math.isfinite(value):
                raise BadStepError(found.bad_token(part.datums, counted))
            sharded = self.policy.sharded is not None
            torch.autograd.backward(found.total * self.policy.ranks if sharded else found.total)  # FSDP2 takes means
        return value

    def _clip(self) -> float:
        """Clip to the option's norm, and return the norm before. Raises BadStepError if it is not finite."""
        limit = self.options.grad_clip_norm or float("inf")
        norm = float(full_tensor(torch.nn.utils.clip_grad_norm_(self.policy.trained.values(), limit)))
        if norm != norm or norm == float("inf"):
            raise BadStepError(f"the gradient's norm is {norm}; lower student.learning_rate, or compute in float32")
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """Trained weights and moments, whole; where they are sharded, every rank must ask at the same time."""
        return trainer_tensors(self.policy, self.optimizer)

    def save(self, path: Path) -> None:
        """Write trained weights, the optimizer's moments and the schedule's step into the directory `path`."""
        write_checkpoint(path, self.tensors(), self.scheduler.last_epoch, self.options.total_steps)

    def load(self, path: Path) -> str | None:
        """Take back what `save` wrote; returns what the user should know of the rates to come, if the plan changed."""
        return self.take(self.read(path))

    def read(self, path: Path) -> SavedTrainer:
        """What `save` wrote into the directory `path`; nothing is changed. Raises KeyError for another student's."""
        return read_checkpoint(path, self.policy)

    def take(self, saved: SavedTrainer) -> str | None:
        """Set everything to what was read; returns as `load`.

        Without tensors those of rank 0 are taken, which does this at the same time.
        """
        take_checkpoint(saved, self.policy, self.optimizer)
        self._go_to(saved.steps_done)
        return None if saved.total_steps is None else self._changed_plan(saved.total_steps)

    def _go_to(self, step: int) -> None:
        """Set the rates of this run's schedule after so many steps, whatever the schedule was that led there."""
        scheduler = self.scheduler
        rates = [rate * at(step) for rate, at in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": step, "_last_lr": rates})
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _changed_plan(self, planned: int) -> str | None:
        steps = self.options.total_steps
        if planned == steps or self.options.schedule not in FALLING:
            return None
        return (
            f"the run was to have {planned} optimizer steps when it was saved, and has {steps} now: the learning rates "
            f"of the remaining ones follow the new plan ({self.options.schedule}), the next is "
            f"{self.scheduler.get_last_lr()[0]:.3g}"
        )
