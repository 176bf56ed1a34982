"""One optimizer step on a batch: AdamW, gradients accumulated over micro-batches, clipped."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import get_scheduler

from distillkit.errors import BadStepError, PluginError, RunFailedError
from distillkit.loop.training import where
from distillkit.records import Batch, Datum, StepResult, TorchLoss
from distillkit.seeds import derive_seed
from distillkit_builtin.local.adaptive_batch_size import PartSize
from distillkit_builtin.local.causal_lm import PromptAndResponse
from distillkit_builtin.local.logprob_mismatch import Mismatch, MismatchMeter, mismatch_metrics
from distillkit_builtin.local.losses import FUNCTIONS
from distillkit_builtin.local.packing import balanced
from distillkit_builtin.local.policy import Policy
from distillkit_builtin.local.ranks.collectives import sum_gradients
from distillkit_builtin.local.ranks.sharding import gathered, like, whole

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
NOTHING = PromptAndResponse(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
"""What a rank computes that has nothing left, where the others cannot compute without it."""
FALLING = ("linear", "cosine")
"""Schedules whose rates depend on how many steps there are in all."""


@dataclass(frozen=True, slots=True)
class OptimizerOptions:
    """What the optimizer is made of."""

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
    """What dropout's random numbers derive from."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What gathering a gradient found."""

    loss: float
    """The sum of `weights * loss`."""
    mismatch: Mismatch


def step_result(gathered: Sequence[Gathered], applied: Mapping[str, float]) -> StepResult:
    """Of one step whose gradient was gathered in these shares."""
    loss = math.fsum(share.loss for share in gathered)
    return StepResult({"train/loss": loss, **mismatch_metrics([share.mismatch for share in gathered]), **applied})


class Trainer:
    """The optimizer of one policy."""

    def __init__(self, policy: Policy, options: OptimizerOptions) -> None:
        """Nothing trained yet."""
        self.policy = policy
        self.options = options
        self.optimizer = torch.optim.AdamW(
            policy.trained.values(),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=policy.causal_lm.device.device.type == "cuda",
        )
        self.part = PartSize(options.micro_batch_tokens, "tokens", "student.micro_batch_tokens")
        self._mismatch = MismatchMeter()
        self.scheduler = get_scheduler(
            options.schedule,
            self.optimizer,
            num_warmup_steps=options.warmup_steps,
            num_training_steps=options.total_steps,
        )

    def step(self, batch: Batch) -> StepResult:
        """Sum `weights * loss` over the batch's tokens, and move the weights once. Raises BadStepError."""
        return step_result([self.gather(batch)], self.apply())

    def gather(self, batch: Batch, parts: int | None = None) -> Gathered:
        """The batch's gradient, for `apply`; in smaller parts where there is no room. Raises BadStepError.

        Where weights are sharded, ranks compute together: each must take as many `parts`, and none can try again.
        """
        while True:
            self._mismatch = MismatchMeter()
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return Gathered(self.accumulate(batch, parts), self._mismatch.read())
            except torch.OutOfMemoryError as error:
                if parts is not None:
                    raise RunFailedError(f"{error}; lower student.micro_batch_tokens, now {self.part.size}") from error
                self.part.shrink(error, max(len(datum.prompt_ids) + len(datum.response_ids) for datum in batch.datums))

    def accumulate(self, batch: Batch, parts: int | None = None) -> float:
        """Add the batch's gradient to what `apply` will use; returns its sum of `weights * loss`."""
        function = self._function(batch)
        total = 0.0
        items = [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in batch.datums]
        with self.policy.training(), self._own_random_numbers():
            if parts is None:
                groups = self.policy.micro_batches(items, self.part.size)
            else:
                groups = balanced(list(map(len, items)), parts)
            for group in groups:
                self.policy.causal_lm.device.raise_if_cancelled()
                total += self._accumulate([batch.datums[i] for i in group], function, batch.options)
        return total

    def apply(self) -> dict[str, float]:
        """Move the weights once by the gradients that stand there, which stay."""
        grad_norm = self._clip()
        learning_rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        return {"train/grad_norm": grad_norm, "train/learning_rate": float(learning_rate)}

    def apply_all(self) -> dict[str, float]:
        """`apply` with the gradients of all ranks, which do the same at the same time."""
        if self.policy.sharded is None:  # else they were summed with each backward pass
            sum_gradients(self.policy.trained.values())
        return self.apply()

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Dropout depends on the run's seed and the step alone, also after a resume."""
        device = self.policy.causal_lm.device.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.options.seed, "dropout", self.scheduler.last_epoch))
            yield

    def _function(self, batch: Batch) -> TorchLoss:
        function = FUNCTIONS.get(batch.loss_function, batch.torch_loss)
        if function is None:
            raise PluginError(f"the local student does not know the loss function {batch.loss_function!r}")
        return function

    def _accumulate(self, datums: list[Datum], function: TorchLoss, options: Mapping[str, float]) -> float:
        if not datums:
            torch.autograd.backward(self.policy.logprobs([NOTHING]).sum() * 0.0)  # the others wait for this
            return 0.0
        device = self.policy.causal_lm.device.device
        inputs = {
            name: torch.cat([torch.tensor(datum.inputs[name]) for datum in datums]).to(device)
            for name in datums[0].inputs
        }
        items = [PromptAndResponse(datum.prompt_ids, datum.response_ids) for datum in datums]
        logprobs = self.policy.logprobs(items)
        self._mismatch.add(logprobs, inputs)
        losses: Tensor = function(logprobs, inputs, options)
        loss = (losses * inputs["weights"]).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise BadStepError(self._bad_token(datums, logprobs.detach(), losses.detach()))
        torch.autograd.backward(loss if self.policy.sharded is None else loss * self.policy.ranks)  # FSDP2 takes means
        return value

    def _bad_token(self, datums: list[Datum], logprobs: Tensor, losses: Tensor) -> str:
        """Which token's logprob, or else loss, is not finite; a sum of finite losses may be infinite too."""
        for what, values in (("logprob", logprobs), ("loss", losses)):
            bad = (~torch.isfinite(values)).nonzero()
            if bad.numel():
                return f"{where(datums, int(bad[0, 0]))}: its {what} under the student is {float(values[bad[0, 0]])}"
        return "the loss, a sum of finite numbers, is not finite; lower loss.scale"

    def _clip(self) -> float:
        """Clip to the norm that is wanted, and return the norm before. Raises BadStepError if it is not finite."""
        limit = self.options.grad_clip_norm or float("inf")
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.policy.trained.values(), limit)))
        if norm != norm or norm == float("inf"):
            raise BadStepError(f"the gradient's norm is {norm}; lower student.learning_rate, or compute in float32")
        return norm

    def save(self, path: Path) -> None:
        """Trained weights, the optimizer's moments, and the scheduler's place."""
        tensors = self.tensors()
        tensors["scheduler"] = torch.tensor(self.scheduler.last_epoch)
        tensors["total_steps"] = torch.tensor(self.options.total_steps)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / "trainer.safetensors")

    def tensors(self) -> dict[str, Tensor]:
        """Trained weights and moments, whole; where they are sharded, every rank must ask at the same time."""
        weights = [(f"weight/{name}", parameter) for name, parameter in self.policy.trained.items()]
        moments = [
            (f"{moment}/{name}", value)
            for name, parameter in self.policy.trained.items()
            for moment, value in self.optimizer.state[parameter].items()
        ]
        return gathered([*weights, *moments])

    def load(self, path: Path) -> str | None:
        """Take back what `save` wrote. What the user should know of the rates to come, where the plan has changed."""
        tensors = load_file(path / "trainer.safetensors")
        with torch.no_grad():
            for name, parameter in self.policy.trained.items():
                parameter.copy_(like(tensors[f"weight/{name}"], parameter))
                moments = {moment: tensors[f"{moment}/{name}"] for moment in MOMENTS if f"{moment}/{name}" in tensors}
                self.optimizer.state[parameter] = {
                    moment: self._place(moment, value, parameter) for moment, value in moments.items()
                }
        self._go_to(int(tensors["scheduler"]))
        return self._other_plan(int(tensors["total_steps"])) if "total_steps" in tensors else None

    def _place(self, moment: str, value: Tensor, parameter: Tensor) -> Tensor:
        """A moment where the optimizer wants it: beside its weight; `step` only if the optimizer is fused."""
        if moment == "step":
            return value.to(parameter.device if self.optimizer.defaults["fused"] else "cpu")
        return like(value, parameter)

    def _go_to(self, place: int) -> None:
        """Set the rates of this run's schedule after so many steps, whatever the schedule was that led there."""
        scheduler = self.scheduler
        rates = [rate * at(place) for rate, at in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": place, "_last_lr": rates})
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _other_plan(self, planned: int) -> str | None:
        steps = self.options.total_steps
        if planned == steps or self.options.schedule not in FALLING:
            return None
        return (
            f"the run was to have {planned} optimizer steps when it was saved, and has {steps} now: the learning rates "
            f"of the remaining ones follow the new plan ({self.options.schedule}), the next is "
            f"{self.scheduler.get_last_lr()[0]:.3g}"
        )
