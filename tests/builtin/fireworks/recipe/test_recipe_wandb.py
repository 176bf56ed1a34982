"""Weights & Biases gets the recipe's names beside the engine's."""

from typing import ClassVar

from builtin.fireworks.recipe.recipe_configs import make
from distillkit.events import StepFinished
from distillkit.recipes import distillation_loop as recipe
from distillkit_builtin.fireworks.recipe.metrics import recipe_wandb


def test_weights_and_biases_gets_both_names() -> None:
    class Run:
        logged: ClassVar[dict[str, float]] = {}

        def log(self, metrics: dict[str, float], step: int) -> None:
            self.logged.update(metrics, at=step)

    (sink,) = recipe_wandb(make(wandb=recipe.WandBConfig("me", "mine"), opd_loss_scale=2.0))
    sink._run = Run()  # type: ignore[assignment]  # it only logs
    times = {"time/forward_backward": 1.5, "time/optim_step": 0.5}
    sink.emit(StepFinished(3, {"train/reverse_kl": 0.5, "train/abs_advantage": 4.0, **times}))
    assert Run.logged == {
        "at": 3,
        "train/step": 3.0,
        "train/reverse_kl": 0.5,
        "train/abs_advantage": 4.0,
        **times,
        "perf/fwd_bwd_time": 1.5,
        "perf/optim_step_time": 0.5,
        "train/opd_sampled_reverse_kl": 0.5,
        "train/opd_student_logprob_minus_teacher_logprob": 0.5,
        "train/opd_teacher_logprob_minus_student_logprob": -0.5,
        "train/opd_abs_advantage": 4.0,
        "train/opd_abs_logprob_gap": 2.0,
    }
    topk = make(wandb=recipe.WandBConfig("me", "mine"), distill_mode="topk_forward_kl", sdft_top_k=3)
    (sink,) = recipe_wandb(topk)
    Run.logged = {}
    sink._run = Run()  # type: ignore[assignment]  # it only logs
    sink.emit(StepFinished(1, {"train/reverse_kl": 0.5, "train/active_tokens": 7.0}))
    assert {name: value for name, value in Run.logged.items() if name.startswith(("train/opd", "train/sdft"))} == {
        "train/sdft_active_positions": 7.0,
        "train/sdft_top_k": 3.0,
    }
    assert recipe_wandb(make()) == []
