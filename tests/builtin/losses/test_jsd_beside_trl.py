"""`divergence` with direction `jsd` is TRL's generalized JSD, of the same logits: value and gradient."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.table_completions import loss_at
from torch import Tensor
from torch.nn.functional import kl_div

from distillkit import Array
from distillkit_builtin.losses.divergence import Divergence

BENCHMARKS_OWN = Path(__file__).parents[3] / ".venv-trl" / "bin" / "python"
"""Of the environment that `make bench` sets up, with TRL 1.16.0."""
BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]
CALL_TRL = """
import sys
import numpy as np, torch
from trl.experimental.gkd import GKDTrainer
tables = np.load(sys.argv[1])
student, teacher = (torch.tensor(tables[name])[None] for name in ("student", "teacher"))
found = {}
for beta in tables["betas"].tolist():
    for temperature in tables["temperatures"].tolist():
        logits = student.clone().requires_grad_()
        each = GKDTrainer.generalized_jsd_loss(logits, teacher, beta=beta, temperature=temperature, reduction="none")
        each.sum().backward()
        found[f"value {beta} {temperature}"] = each.detach().sum(-1)[0].numpy()
        found[f"gradient {beta} {temperature}"] = logits.grad[0].numpy()
np.savez(sys.argv[2], **found)
"""


def trl_python() -> str | None:
    """An interpreter that has TRL."""
    if BENCHMARKS_OWN.exists():
        return str(BENCHMARKS_OWN)
    return sys.executable if find_spec("trl") else None


def as_trl_has_it(student: Tensor, teacher: Tensor, beta: float, temperature: float) -> Tensor:
    """TRL's formula, `GKDTrainer.generalized_jsd_loss`: the second argument of `kl_div` is the one that weighs."""
    s, t = (torch.log_softmax(logits / temperature, dim=-1) for logits in (student, teacher))
    if beta in (0, 1):
        return kl_div(*((t, s) if beta else (s, t)), reduction="none", log_target=True).sum(-1)
    middle = torch.log((1 - beta) * s.exp() + beta * t.exp())
    sides = (kl_div(middle, side, reduction="none", log_target=True).sum(-1) for side in (t, s))
    return beta * next(sides) + (1 - beta) * next(sides)


def tables() -> tuple[Array, Array]:
    made_up = np.random.default_rng(11)
    student, teacher = (2 * made_up.standard_normal((2, 12, 60))).astype(np.float32)
    return student, teacher


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("beta", BETAS)
def test_it_is_the_formula_of_trl(beta: float, temperature: float) -> None:
    student, teacher = tables()
    loss = Divergence(direction="jsd", beta=beta, temperature=temperature)
    values, gradients = loss_at(loss, student, [teacher])
    logits = torch.tensor(student, dtype=torch.float64).requires_grad_()
    wanted = as_trl_has_it(logits, torch.tensor(teacher, dtype=torch.float64), beta, temperature)
    wanted.sum().backward()
    assert logits.grad is not None
    np.testing.assert_allclose(values, wanted.detach(), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(gradients, logits.grad, rtol=1e-6, atol=2e-6)


@pytest.mark.skipif(trl_python() is None, reason="TRL is not installed; `make bench` sets up an environment with it")
def test_it_is_the_loss_of_trl_itself(tmp_path: Path) -> None:
    student, teacher = tables()
    temperatures = [1.0, 2.0]
    np.savez(tmp_path / "in.npz", student=student, teacher=teacher, betas=BETAS, temperatures=temperatures)
    call = [str(trl_python()), "-c", CALL_TRL, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(call, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    for beta in BETAS:
        for temperature in temperatures:
            loss = Divergence(direction="jsd", beta=beta, temperature=temperature)
            values, gradients = loss_at(loss, student, [teacher])
            np.testing.assert_allclose(values, found[f"value {beta} {temperature}"], atol=1e-5)
            np.testing.assert_allclose(gradients, found[f"gradient {beta} {temperature}"], atol=1e-5)
