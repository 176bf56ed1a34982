"""Who draws completions from a causal_lm: the fast path where it is proven for it, or transformers' own forward."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from distillkit.errors import InputError
from distillkit.records import Rollout
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fast.backbone import UnsupportedModelError
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.plain_generator import Generator
from distillkit_builtin.local.requirements import ForwardName


class Drawer(Protocol):
    """Draws completions in the device's thread."""

    def generate(
        self, requests: Sequence[SampleRequest], size: int, version: int, emit: Callable[[Rollout], None]
    ) -> None:
        """Draw requests that are all drawn in the same way, `size` at a time, and `emit` each completion when it ends.

        Rollouts say that policy `version` made them. Raises Cancelled between two tokens, and torch.OutOfMemoryError.
        """
        ...

    def release(self) -> bool:
        """Let go of memory that is kept from call to call, and say whether there was any."""
        ...


@dataclass(frozen=True, slots=True)
class PlainDrawer:
    """Batch after batch, by transformers' own forward."""

    causal_lm: CausalLM
    tokenizer: HFTokenizer
    eos_ids: frozenset[int]

    def generate(
        self, requests: Sequence[SampleRequest], size: int, version: int, emit: Callable[[Rollout], None]
    ) -> None:
        """See `Drawer`."""
        generator = Generator(self.causal_lm, self.tokenizer, self.eos_ids, version)
        with self.causal_lm.without_adapter():
            for start in range(0, len(requests), size):
                generator.generate(requests[start : start + size], emit)

    def release(self) -> bool:
        """Nothing is kept."""
        return False


def drawer_for(
    causal_lm: CausalLM, tokenizer: HFTokenizer, forward: ForwardName, tell: Callable[[str], None]
) -> Drawer:
    """The drawer of a causal_lm. Raises InputError if `fast` is asked for and is not to be had; `auto` tells why."""
    eos_ids = eos_ids_of(causal_lm, tokenizer)
    if forward == "plain":
        return PlainDrawer(causal_lm, tokenizer, eos_ids)
    try:
        return SlotGenerator(verified_backbone(causal_lm), tokenizer, eos_ids)
    except UnsupportedModelError as reason:
        if forward == "fast":
            raise InputError(f"forward: fast cannot be used: {reason}; take auto") from reason
        tell(f"{type(causal_lm.model).__name__} is computed by transformers' own forward: {reason}")
        return PlainDrawer(causal_lm, tokenizer, eos_ids)


def eos_ids_of(causal_lm: CausalLM, tokenizer: HFTokenizer) -> frozenset[int]:
    """Every id that ends a completion: the generation config's and the tokenizer's."""
    configured = causal_lm.model.generation_config.eos_token_id if causal_lm.model.generation_config else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    return frozenset([*ids, *([] if tokenizer.eos_id is None else [tokenizer.eos_id])])


def alike(requests: Sequence[SampleRequest]) -> Iterator[Sequence[SampleRequest]]:
    """Requests that follow each other and are drawn in the same way."""
    for _, same in groupby(requests, key=lambda request: request.params):
        yield list(same)
