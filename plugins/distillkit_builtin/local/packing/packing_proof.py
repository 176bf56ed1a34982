"""Whether packed rows give what single sequences give: computed on the device and compared, before a student trains.

Three things are looked at, and only the last of them is a matter of rounding:

- The gradient of one sequence's hidden states is exactly zero at every token of the others, and at none of its own
  that it should read. A single key too many or too few at a boundary is found, however little it weighs.
- Its hidden states stay where they are while the others' tokens, and their order, change: experts with a capacity, or
  a norm over the batch, move them.
- Hidden states and gradients are those of transformers' eager forward of the sequence alone, about as closely as
  padded sequences come to them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_line
from distillkit_builtin.local.device import autocast
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.model.attention_choice import attending_by
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS
from distillkit_builtin.local.packing.attention_proof import require_exact_attention
from distillkit_builtin.local.packing.packed_attention import AttentionCall, packed_attention, varlen_attention
from distillkit_builtin.local.packing.packed_forward import packed_response_states
from distillkit_builtin.local.packing.packing_conditions import declared_windows, require_declared

TOLERANCE = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (0.01, 0.1)}
"""How far apart hidden states may be as a share of their norm: at any rate, and where padded ones are far away too."""
ROUNDING = 3.0
"""How often as far as padded ones they may be away."""
LONGEST_WINDOW = 128
"""Tokens of the longest window that whole sequences go beyond; for longer ones attention alone is compared."""
IDS = 5000
"""Sequences are made of ids up to this one."""


def require_packable(causal_lm: CausalLM) -> None:
    """Raise UnsupportedModelError, saying why, unless packed rows give on this device what single sequences give."""
    kind = causal_lm.device.device.type
    if causal_lm.dtype not in TOLERANCE:
        raise UnsupportedModelError(f"packing was never tried in {causal_lm.dtype}")
    if kind not in ("cuda", "cpu"):
        raise UnsupportedModelError(f"packing was never tried on {kind}")
    if kind == "cuda" and varlen_attention is None:
        raise UnsupportedModelError(f"PyTorch {torch.__version__} has no attention for packed sequences of this kind")
    if kind == "cuda" and causal_lm.dtype == torch.float32:
        raise UnsupportedModelError("FlashAttention does not compute in float32")
    try:
        with autocast(causal_lm.device.device, causal_lm.dtype), torch.enable_grad():
            _prove(causal_lm, declared_windows(causal_lm))
    except (InputError, torch.OutOfMemoryError):
        raise
    except MODEL_ERRORS as error:
        raise UnsupportedModelError(f"packed sequences cannot be computed here: {first_line(error)}") from error


@dataclass(frozen=True, slots=True)
class _Computed:
    """Of each item."""

    hidden: list[Tensor]
    """[R, hidden] float32: the states that predict its response."""
    gradients: list[Tensor]
    """[ids, width] float32: of a random projection of those states, at the embeddings of each id."""


def _prove(causal_lm: CausalLM, windows: Sequence[int | None]) -> None:
    """Raise UnsupportedModelError at the first thing that is not as it should be."""
    items, others = _items(_vocabulary(causal_lm), windows)
    calls: list[AttentionCall] = []
    with torch.no_grad():  # a backward pass that recomputes activations would ask a second time
        packed_response_states(causal_lm, items, calls)
    require_declared(calls, windows)
    for call in dict.fromkeys(calls):
        require_exact_attention(causal_lm, call)
    with packed_attention(causal_lm):  # recomputed activations need it too
        packed = _computed(causal_lm, items, lambda some: packed_response_states(causal_lm, some).hidden)
    with attending_by(causal_lm.model, "eager"):
        each = [_computed(causal_lm, [item], lambda some: causal_lm.response_states(some).hidden) for item in items]
    alone = _Computed([one.hidden[0] for one in each], [one.gradients[0] for one in each])
    _require_same_tokens(packed, alone)
    padded = _computed(causal_lm, items, lambda some: causal_lm.response_states(some).hidden)
    _require_close("hidden states are", packed.hidden, alone.hidden, padded.hidden, causal_lm.dtype)
    _require_close("gradients are", packed.gradients, alone.gradients, padded.gradients, causal_lm.dtype)
    with torch.no_grad():
        moved = packed_response_states(causal_lm, others).hidden.float()
    kept = [part for part, item in zip(_parts(moved, others), others, strict=True) if item in items]
    before = [packed.hidden[items.index(item)] for item in others if item in items]
    spread = [padded.hidden[items.index(item)] for item in others if item in items]
    _require_close("hidden states beside other sequences are", kept, before, spread, causal_lm.dtype)


def _vocabulary(causal_lm: CausalLM) -> int:
    return min(IDS, len(causal_lm.model.get_input_embeddings().get_parameter("weight")))


def _items(vocabulary: int, windows: Sequence[int | None]) -> tuple[list[PromptAndResponse], list[PromptAndResponse]]:
    """Sequences of different lengths, two of which share a prompt, and a row in which some are others.

    No id comes twice but in a shared prompt, so that it says whose token it is. In the second row the order is
    another, and what is new repeats one token: many at once go to the same experts.
    """
    longest = max([40, *(w + 9 for w in windows if w is not None and w <= LONGEST_WINDOW)])
    sizes = [(8, 3), (9, 2), (0, 5), (5, longest - 5), (1, 4), (6, 1)]
    ids = np.random.default_rng(0).permutation(np.arange(1, vocabulary))
    if len(ids) < sum(map(sum, sizes)):
        raise UnsupportedModelError(f"a vocabulary of {vocabulary} ids is too small to tell sequences apart")
    items: list[PromptAndResponse] = []
    for prompt, response in sizes:
        mine, ids = ids[: prompt + response], ids[prompt + response :]
        items.append(PromptAndResponse(mine[:prompt] if prompt else items[0].prompt_ids, mine[prompt:]))
    crowd = [PromptAndResponse(np.repeat(items[0].prompt_ids[-1:], len(i.prompt_ids)), i.response_ids) for i in items]
    return items, [items[4], crowd[1], items[3], crowd[5], items[2], crowd[3], items[0]]


def _computed(
    causal_lm: CausalLM,
    items: Sequence[PromptAndResponse],
    compute: Callable[[Sequence[PromptAndResponse]], Tensor],
) -> _Computed:
    """What `compute` makes of the items, [R_1 + R_2 + ..., hidden], and its gradients."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor], embedded: Tensor) -> Tensor:
        if not embedded.requires_grad:
            embedded.requires_grad_()
        seen.append((inputs[0], embedded))
        return embedded.clone()  # some models scale them in place, which what a gradient is asked of must not be

    hook = causal_lm.model.get_input_embeddings().register_forward_hook(keep)
    try:
        parts = _parts(compute(items), items)
    finally:
        hook.remove()
    ((ids, embedded),) = seen
    gradients = []
    for part in parts:
        weights = torch.randn(part.shape, generator=torch.Generator().manual_seed(0)).to(part.device)
        (gradient,) = torch.autograd.grad((part.float() * weights).sum(), embedded, retain_graph=True)
        by_id = gradient.new_zeros(_vocabulary(causal_lm), gradient.shape[-1], dtype=torch.float32)
        gradients.append(by_id.index_add_(0, ids.flatten(), gradient.flatten(0, -2).float()))
    return _Computed([part.detach().float() for part in parts], gradients)


def _parts(hidden: Tensor, items: Sequence[PromptAndResponse]) -> list[Tensor]:
    return list(hidden.split([len(item.response_ids) for item in items]))


def _require_same_tokens(packed: _Computed, alone: _Computed) -> None:
    """Raise UnsupportedModelError if a sequence depends on a token that is not its own, or not on one that is."""
    for mine, theirs in zip(packed.gradients, alone.gradients, strict=True):
        found, expected = mine.norm(dim=1), theirs.norm(dim=1)
        if (found[expected == 0] != 0).any():
            raise UnsupportedModelError("packed sequences depend on tokens of others in their row")
        if (found[expected > NOTICEABLE * expected.max()] == 0).any():
            raise UnsupportedModelError("packed sequences do not depend on all of their own tokens")


NOTICEABLE = 1e-6
"""The share of the largest gradient that cannot vanish by rounding."""


def _require_close(
    what: str, found: list[Tensor], expected: list[Tensor], padded: list[Tensor], dtype: torch.dtype
) -> None:
    """Raise UnsupportedModelError if what was found of some items is farther away than rounding explains."""
    usual, largest = TOLERANCE[dtype]
    limit = min(largest, max(usual, ROUNDING * _distance(padded, expected, dtype)))
    distance = _distance(found, expected, dtype)
    if not distance <= limit:
        raise UnsupportedModelError(
            f"its packed {what} {distance:.2g} of their norm away from those of single sequences; rounding explains "
            f"{limit:.2g}"
        )


def _distance(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> float:
    """As a share of the norm: of the item that is farthest away, in bfloat16 of the middle one of all tokens.

    There a token may be sent to other experts by rounding, which moves it far.
    """
    if dtype == torch.float32:
        pairs = zip(found, expected, strict=True)
        return max(float((mine - theirs).norm() / theirs.norm()) for mine, theirs in pairs)
    mine, theirs = torch.cat(found), torch.cat(expected)
    norms = theirs.norm(dim=1)
    shares = (mine - theirs).norm(dim=1)[norms > 0] / norms[norms > 0]
    return float(shares.median())
