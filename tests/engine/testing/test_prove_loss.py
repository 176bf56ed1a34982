"""Losses that keep what they say pass, and each way of breaking it fails by name."""

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers.proved_losses import (
    Constant,
    EntropyAware,
    FullForward,
    Sampled,
    StudentTopK,
    TeacherTopK,
    forward_kl,
    reverse_kl,
)
from torch import Tensor

from distillkit import Array, Loss, NextTokenDivergence, Positions, ScoredRollout, TokenLoss
from distillkit.errors import PluginError
from distillkit.testing import Proof, check_plugin, prove_loss
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

CHECKS = (
    "loss of each position",
    "expected gradient",
    "teacher felt",
    "equal teacher",
    "another teacher",
    "independent positions",
    "masks",
    "weights",
)


def failures(proof: Proof) -> dict[str, str]:
    return {check.name: check.sentence for check in proof.failures}


@pytest.mark.parametrize(
    ("loss", "cases"),
    [
        (ImportanceSampling(), 1),
        (ImportanceSampling(scale=0.3), 1),
        (ImportanceSampling(advantage_clip=0.5), 1),
        (FullForward(), 2),
        (TeacherTopK(), 4),
        (StudentTopK(k=3), 4),
        (Sampled(), 2),
        (EntropyAware(), 2),
        (Constant(), 2),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_losses_that_keep_what_they_say_are_proven(loss: Loss, cases: int) -> None:
    proof = prove_loss(loss)
    assert not failures(proof)
    assert proof.passed
    assert tuple(check.name for check in proof.checks) == CHECKS
    assert len(proof.cases) == cases
    claims = {check.name for check in proof.checks if check.result == "passed"}
    assert ("expected gradient" in claims) == (loss.minimises() is not None)
    check_plugin(loss)


def test_each_size_that_the_option_may_have_is_looked_at() -> None:
    assert prove_loss(TeacherTopK()).cases == tuple(f"k = {k}, 1 teacher" for k in (2, 3, 4, 5))
    assert prove_loss(FullForward()).cases == ("1 teacher", "2 teachers")
