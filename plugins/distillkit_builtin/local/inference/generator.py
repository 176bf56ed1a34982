"""Sampling completions from a model, by its verified fast backbone or by transformers' own forward."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Protocol

from distillkit.records import Rollout
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator


class Generator(Protocol):
    """Samples completions in the device's thread."""

    gives_up: int | None
    """Bytes of what stays from call to call from which on it is freed at the end of a call; None: it always stays."""

    @property
    def known(self) -> KnownIds:
        """Which ids are sampled."""
        ...

    def generate(
        self, requests: Sequence[SampleRequest], size: int, version: int, emit: Callable[[Rollout], None]
    ) -> None:
        """Sample requests that have one set of sampling parameters and want the same, `size` at a time.

        `emit` gets each completion when it ends; it says that policy `version` made it.

        Raises:
            Cancelled: between two tokens, when the device's work is cancelled.
            torch.OutOfMemoryError: completions that have ended were emitted.
        """
        ...

    def free_caches(self) -> bool:
        """Free memory that is kept from call to call, and return whether there was any."""
        ...


def generator_for(
    causal_lm: CausalLM, backbone: FastBackbone | None, tokenizer: HFTokenizer
) -> SlotGenerator | PlainGenerator:
    """By the model's fast backbone where it has one, else by transformers' own forward."""
    eos_ids = frozenset(tokenizer.eos_ids)
    if backbone is None:
        return PlainGenerator(causal_lm, tokenizer, eos_ids)
    return SlotGenerator(backbone, tokenizer, eos_ids)


def by_params(requests: Sequence[SampleRequest]) -> Iterator[Sequence[SampleRequest]]:
    """Requests that follow each other, have one set of sampling parameters and want the same besides."""
    for _, same in groupby(requests, key=lambda request: (request.params, dict(request.wanted))):
        yield list(same)
