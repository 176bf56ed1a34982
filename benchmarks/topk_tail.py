"""How much reverse KL is left after training on a top-K support, with its tail and without.

    python benchmarks/topk_tail.py

A student and a teacher that are tables: random next-token logits at some positions. Adam goes down on a loss's
divergence; what is printed is the reverse KL of the whole distributions, and what the student gives to its own top 8.
"""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from distillkit_builtin.losses.divergence import Divergence, divergence_of_tables
from distillkit_builtin.losses.divergence_formulas import kl

POSITIONS, VOCABULARY, SPREAD = 32, 64, 2.0
STEPS, LEARNING_RATE, SEEDS, K = 600, 0.02, (0, 1, 2), 8


def left_after(loss: Divergence, seed: int, steps: int = STEPS) -> tuple[float, float]:
    """The mean reverse KL in nats, and the mean probability of the student's top 8."""
    made = torch.Generator().manual_seed(seed)
    teacher, logits = (SPREAD * torch.randn(POSITIONS, VOCABULARY, generator=made) for _ in range(2))
    teacher = torch.log_softmax(teacher, dim=-1)
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], LEARNING_RATE)
    for _ in range(steps):
        student = torch.log_softmax(logits, dim=-1)
        value = divergence_of_tables(student, teacher, student.detach(), loss.options()).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    student = torch.log_softmax(logits.detach(), dim=-1)
    return float(kl(student, teacher).mean()), float(student.exp().topk(K).values.sum(-1).mean())


def cases() -> Iterator[Mapping[str, Any]]:
    """Options of the losses that are compared."""
    yield {}
    for direction in ("reverse", "forward", "jsd", "skew"):
        for support in ("student_topk", "teacher_topk", "union"):
            yield from ({"direction": direction, "support": support, "k": K, "tail": tail} for tail in (True, False))


def main() -> None:
    """Print a table."""
    table = Table("direction", "support", "tail", "reverse KL left", "student's top 8")
    start = [left_after(Divergence(), seed, 0) for seed in SEEDS]
    table.add_row("(at the start)", "", "", *_means(start))
    for options in cases():
        loss = Divergence(**options)
        tail = "" if loss.support == "full" else str(loss.tail).lower()
        table.add_row(loss.direction, loss.support, tail, *_means([left_after(loss, seed) for seed in SEEDS]))
    Console().print(table)


def _means(found: list[tuple[float, float]]) -> list[str]:
    return [f"{statistics.fmean(column):.2f}" for column in zip(*found, strict=True)]


if __name__ == "__main__":
    main()
