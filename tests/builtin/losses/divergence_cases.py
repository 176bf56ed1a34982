"""Divergences in every direction, over every support, and their reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from helpers import reference_divergence
from hypothesis import strategies as st

from distillkit import Array
from distillkit_builtin.losses.divergence import Divergence

DIRECTIONS: list[Mapping[str, Any]] = [
    {"direction": "reverse"},
    {"direction": "forward"},
    {"direction": "jsd"},
    {"direction": "jsd", "beta": 0.0},
    {"direction": "jsd", "beta": 0.1},
    {"direction": "jsd", "beta": 1.0},
    {"direction": "skew"},
    {"direction": "skew", "beta": 0.0},
    {"direction": "skew", "beta": 0.7},
]
SUPPORTS = ["full", "teacher_topk", "student_topk", "union"]
SEEDS = st.integers(0, 2**32 - 1)


def named(options: Mapping[str, Any]) -> str:
    return " ".join(map(str, options.values()))


def made(support: str, k: int | None = 3, **options: Any) -> Divergence:
    return Divergence(support=support, k=None if support == "full" else k, **options)


def logits(seed: int, spread: float, tables: int = 2, dtype: type = np.float64) -> list[Array]:
    """[5, V]."""
    made_up = np.random.default_rng(seed)
    size = made_up.integers(12, 40)
    return [(spread * made_up.standard_normal((5, size))).astype(dtype) for _ in range(tables)]


def reference(loss: Divergence, s: Array, t: Array, ids: list[int] | None) -> tuple[float, Array]:
    beta = float(str(loss.options()["beta"]))
    return reference_divergence.divergence(loss.direction, beta, s, t, ids, tail=loss.tail)


def topk(table: Array, k: int) -> list[int]:
    return [int(index) for index in np.argsort(-table, kind="stable")[:k]]


def ids_of(loss: Divergence, student: Array, teachers: list[Array]) -> list[int] | None:
    """The support at a position."""
    k = loss.k or 0
    theirs = [index for teacher in teachers for index in topk(teacher, k)]
    mine = topk(student, k)
    return {"full": None, "teacher_topk": theirs, "student_topk": mine, "union": theirs + mine}[loss.support]
