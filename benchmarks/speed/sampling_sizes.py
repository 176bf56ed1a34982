"""How much is sampled at once, and the prompts that every side gets."""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np

from benchmarks.speed.shapes import Shape


@dataclass(frozen=True)
class SamplingSize:
    """So many completions, each of so many tokens, of prompts that have nothing in common."""

    completions: int
    new_tokens: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Such as 64x256. Raises ValueError if it is not two numbers."""
        if not (found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
            raise ValueError(f"{text!r} is not COMPLETIONSxTOKENS, such as 64x256")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """As it is parsed."""
        return f"{self.completions}x{self.new_tokens}"


def random_prompts(shape: Shape, size: SamplingSize) -> list[list[int]]:
    """Token ids, none of which pads or ends; the same each time."""
    numbers = np.random.default_rng(0)
    return [
        numbers.integers(2, shape.student.vocabulary, shape.prompt_tokens).tolist() for _ in range(size.completions)
    ]
