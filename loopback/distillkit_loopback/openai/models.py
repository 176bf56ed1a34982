"""What a loopback server serves: anything that scores and samples token ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from distillkit.records import FinishReason
from distillkit.types import SamplingParams

Numbers = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


class AdapterError(Exception):
    """An adapter, or whole weights, cannot be read or put on the model."""


class Tokenizer(Protocol):
    """The part of distillkit's `Tokenizer` that a server needs; `HFTokenizer` is one."""

    def encode(self, text: str) -> list[int]:
        """The ids of plain text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        ...

    def show(self, ids: Sequence[int]) -> str:
        """The text of ids with every special token visible."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A model's view of given tokens, natural log at temperature 1. `m` is the number of tokens."""

    logprobs: Numbers
    """[m]"""
    ranks: Ids
    """[m] how many tokens had at least this logprob: 1 for the best."""
    topk_ids: Ids
    """[m, k] the top-k ids, in descending order of logprob."""
    topk_logprobs: Numbers
    """[m, k] their logprobs."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A completion; the id that ended it is one of `ids`."""

    ids: tuple[int, ...]
    finish_reason: FinishReason


class Model(Protocol):
    """A language model behind a server. It is called from many threads at once."""

    name: str
    """The model's `root`, as `/v1/models` says."""
    vocabulary: int
    """How many ids there are."""
    eos_ids: frozenset[int]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that prompts and completions go through."""
        ...

    def score(self, ids: Sequence[int], start: int, top: int) -> Scored:
        """The logprobs of `ids[start:]`, each after all before it, and the `top` best there; `start` is at least 1."""
        ...

    def sample(self, prompt: Sequence[int], seed: int, params: SamplingParams) -> Sampled:
        """One completion of at least one token; the same for the same arguments."""
        ...

    def adapted(self, path: Path) -> Self:
        """The same model with the PEFT adapter that lies in `path`. Raises AdapterError if it does not fit."""
        ...

    def reweighted(self, path: Path) -> Self:
        """The same model with the weights that lie in `path`. Raises AdapterError if there are none that fit."""
        ...
