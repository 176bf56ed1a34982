"""Sequences end to end in one row: nothing is padded, and layers that are compiled meet inputs of one form alone.

Attention stays inside each sequence (`packed_attention.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch._dynamo import mark_dynamic

from distillkit.arrays import IntArray
from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.compiled_layers import vary_in_tokens
from distillkit_builtin.local.device import autocast
from distillkit_builtin.local.fast.backbone import UnsupportedModelError, require_known
from distillkit_builtin.local.packed_attention import attend_on_cuda, packed_attention
from distillkit_builtin.local.token_logprobs import token_logprobs

ROUND = 128
"""On CUDA a row is filled up to a multiple of this many tokens, which matrix products like."""
LEAST_LONGEST = 2048
"""Attention on CUDA is told that sequences may be this long: for shorter ones it has next to nothing more to do."""
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""How far packed and padded hidden states may be apart, as a share of their norm."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Tokens that stand next to each other in the row and read the same: a prompt, a response, or both."""

    ids: IntArray
    before: "Stretch | None" = None
    """What they read besides themselves, which stands before them: the prompt that a response shares with others."""

    @property
    def reads(self) -> int:
        """Tokens that the last of them reads, itself too."""
        return len(self.ids) + (0 if self.before is None else len(self.before.ids))


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences of tokens in one row [1, T]."""

    ids: Tensor
    positions: Tensor
    """[1, T]: of each token in its own sequence."""
    ends: Tensor
    """[n + 1] int32: where each of the n stretches begins, and where the last one ends."""
    longest: int
    """No sequence has more tokens. A power of two, and not small: layers are compiled again for each value."""
    keys: Tensor | None
    """[K] places of the tokens that the stretches read, one stretch after another; None: each reads itself alone."""
    key_ends: Tensor
    """[n + 1] int32: where what each stretch reads begins in `keys`, and where that of the last one ends."""
    predicting: Tensor
    """[R] places of the tokens that predict a response's token, the responses end to end."""
    scored: Tensor
    """[R] the responses' ids."""

    @classmethod
    def of(cls, items: Sequence[PromptAndResponse], device: torch.device) -> "Packed":
        """Prompts with their responses but for the last token, which predicts nothing that is asked for.

        On CUDA each has its own prompt, and zeros fill the row up; elsewhere one with several responses stands once.
        """
        cuda = device.type == "cuda"
        stretches, predicting = (_each_by_itself if cuda else _prompts_once)(items)
        filled = -sum(len(stretch.ids) for stretch in stretches) % ROUND if cuda else 0
        if filled:
            stretches.append(Stretch(np.zeros(filled, dtype=np.int64)))
        ends = _ends([len(stretch.ids) for stretch in stretches])
        starts = dict(zip(stretches, ends[:-1].tolist(), strict=True))

        def there(array: IntArray) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            ids=there(np.concatenate([stretch.ids for stretch in stretches]).astype(np.int64))[None],
            positions=there(np.concatenate([np.arange(s.reads - len(s.ids), s.reads) for s in stretches]))[None],
            ends=there(ends.astype(np.int32)),
            longest=max(LEAST_LONGEST, 1 << (max(stretch.reads for stretch in stretches) - 1).bit_length()),
            keys=there(_keys(stretches, starts)) if any(stretch.before for stretch in stretches) else None,
            key_ends=there(_ends([stretch.reads for stretch in stretches]).astype(np.int32)),
            predicting=there(np.concatenate([starts[stretch] + places for stretch, places in predicting])),
            scored=there(np.concatenate([item.response_ids for item in items]).astype(np.int64)),
        )


Predicting = list[tuple[Stretch, IntArray]]
"""Stretches, and the places inside them that predict something; the same one may come several times."""


def _each_by_itself(items: Sequence[PromptAndResponse]) -> tuple[list[Stretch], Predicting]:
    stretches = [Stretch(np.concatenate([item.prompt_ids, item.response_ids[:-1]])) for item in items]
    pairs = zip(stretches, items, strict=True)
    return stretches, [(stretch, np.arange(len(item.prompt_ids) - 1, len(item) - 1)) for stretch, item in pairs]


def _prompts_once(items: Sequence[PromptAndResponse]) -> tuple[list[Stretch], Predicting]:
    """Prompts first, then what stands behind them, the short ones first: stretches that are alike stand together."""
    prompts = {item.prompt_ids.tobytes(): Stretch(item.prompt_ids) for item in items}
    rest = [Stretch(item.response_ids[:-1], prompts[item.prompt_ids.tobytes()]) for item in items]
    predicting: Predicting = []
    for item, stretch in zip(items, rest, strict=True):
        last = np.array([len(item.prompt_ids) - 1])
        predicting += [(prompts[item.prompt_ids.tobytes()], last), (stretch, np.arange(len(stretch.ids)))]
    stretches = sorted(prompts.values(), key=lambda stretch: stretch.reads)
    stretches += sorted((s for s in rest if len(s.ids)), key=lambda s: (len(s.ids), s.reads))
    return stretches, [(stretch, places) for stretch, places in predicting if len(places)]


def _ends(lengths: Sequence[int]) -> IntArray:
    ends: IntArray = np.concatenate([[0], np.cumsum(lengths)])
    return ends


def _keys(stretches: Sequence[Stretch], starts: Mapping[Stretch, int]) -> IntArray:
    """See `Packed.keys`."""
    parts = [part for stretch in stretches for part in (stretch.before, stretch) if part is not None]
    keys: IntArray = np.concatenate([np.arange(starts[part], starts[part] + len(part.ids)) for part in parts])
    return keys


def packed_logprobs(causal_lm: CausalLM, items: Sequence[PromptAndResponse]) -> Tensor:
    """Float32 logprobs of the items' responses, end to end [R_1 + R_2 + ...]; with gradient if enabled."""
    packed = Packed.of(items, causal_lm.device.device)
    hidden = packed_hidden_states(causal_lm, packed)[packed.predicting]
    return token_logprobs(causal_lm.head, hidden, packed.scored, frozen_head=causal_lm.head_is_frozen)


def packed_hidden_states(causal_lm: CausalLM, packed: Packed) -> Tensor:
    """The last hidden states [T, hidden]."""
    embedded = causal_lm.model.get_input_embeddings()(packed.ids)
    if torch.is_grad_enabled() and not embedded.requires_grad:
        embedded.requires_grad_()  # else a LoRA's first layer would be compiled on its own: its input alone has none
    vary_in_tokens(embedded, packed.positions)
    mark_dynamic(packed.ends, 0)
    mark_dynamic(packed.key_ends, 0)
    with packed_attention(causal_lm):
        out = causal_lm.backbone(
            inputs_embeds=embedded,
            position_ids=packed.positions,
            use_cache=False,
            cu_seq_lens_q=packed.ends,
            cu_seq_lens_k=packed.key_ends,
            max_length_q=packed.longest,
            keys=packed.keys,
        )
    hidden: Tensor = out.last_hidden_state
    return hidden[0]


def require_packable(causal_lm: CausalLM) -> None:
    """Raise UnsupportedModelError, saying why, unless packed sequences give on this device what single ones give."""
    config = causal_lm.model.config.get_text_config()
    require_known(config)
    if getattr(config, "attention_dropout", 0.0):
        raise UnsupportedModelError("its attention has dropout")
    if causal_lm.dtype not in ROUNDING:
        raise UnsupportedModelError(f"packing was never tried in {causal_lm.dtype}")
    kind = causal_lm.device.device.type
    if kind not in ("cuda", "cpu"):
        raise UnsupportedModelError(f"packing was never tried on {kind}")
    if kind == "cuda" and attend_on_cuda is None:
        raise UnsupportedModelError(f"PyTorch {torch.__version__} has no attention for packed sequences of this kind")
    if kind == "cuda" and causal_lm.dtype == torch.float32:
        raise UnsupportedModelError("FlashAttention does not compute in float32")
    try:
        with autocast(causal_lm.device.device, causal_lm.dtype):
            apart = _apart(causal_lm)
    except (RuntimeError, ValueError) as error:  # what PyTorch raises of shapes and devices that a kernel does not know
        raise UnsupportedModelError(
            f"packed sequences cannot be computed here: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    if not apart <= ROUNDING[causal_lm.dtype]:
        raise UnsupportedModelError(f"its packed hidden states are {apart:.2g} of their norm away from the padded ones")


def balanced(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Places of `lengths` in `parts` groups of about the same sum, each in order; of few lengths some groups are empty.

    The longest goes first, each to the group that is lightest so far (Graham's rule: at most 4/3 of the best,
    https://doi.org/10.1137/0117039).
    """
    groups: list[list[int]] = [[] for _ in range(parts)]
    sums = [0] * parts
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        lightest = min(range(parts), key=sums.__getitem__)
        groups[lightest].append(place)
        sums[lightest] += lengths[place]
    return [sorted(group) for group in groups]


def packed_batches(items: Sequence[PromptAndResponse], max_tokens: int) -> list[list[int]]:
    """Places of `items` in few groups of about the same number of tokens, at most `max_tokens` each (or one item).

    Those that share a prompt stay together as far as that goes, and count as if each had its own.
    """
    units = [unit for family in _families(items) for unit in _cut(family, items, max_tokens)]
    sizes = [sum(len(items[i]) for i in unit) for unit in units]
    alone = [unit for unit, size in zip(units, sizes, strict=True) if size > max_tokens]
    rest = [at for at, size in enumerate(sizes) if size <= max_tokens]
    parts = -(-sum(sizes[at] for at in rest) // max_tokens)
    while True:
        groups = [[rest[i] for i in group] for group in balanced([sizes[at] for at in rest], parts) if group]
        if all(sum(sizes[at] for at in group) <= max_tokens for group in groups):
            return sorted(alone + [sorted(i for at in group for i in units[at]) for group in groups])
        parts += 1


def _families(items: Sequence[PromptAndResponse]) -> list[list[int]]:
    """Places of items with one prompt."""
    found: dict[bytes, list[int]] = {}
    for i, item in enumerate(items):
        found.setdefault(item.prompt_ids.tobytes(), []).append(i)
    return list(found.values())


def _cut(family: Sequence[int], items: Sequence[PromptAndResponse], max_tokens: int) -> Iterator[list[int]]:
    """Parts of a family that fit, in order."""
    part: list[int] = []
    for i in family:
        if part and sum(len(items[j]) for j in part) + len(items[i]) > max_tokens:
            yield part
            part = []
        part.append(i)
    yield part


@torch.no_grad()
def _apart(causal_lm: CausalLM) -> float:
    """The distance between packed and single hidden states, as a share of their norm; two of three share a prompt."""
    count = len(causal_lm.model.get_input_embeddings().get_parameter("weight"))
    ids = np.random.default_rng(0).integers(0, count, 30)
    items = [PromptAndResponse(ids[:8], ids[8:11]), PromptAndResponse(ids[12:21], ids[21:23])]
    items.append(PromptAndResponse(ids[:8], ids[23:28]))
    packed = Packed.of(items, causal_lm.device.device)
    plain = torch.cat([_alone(causal_lm, item) for item in items]).float()
    return float((packed_hidden_states(causal_lm, packed)[packed.predicting].float() - plain).norm() / plain.norm())


def _alone(causal_lm: CausalLM, item: PromptAndResponse) -> Tensor:
    """Its hidden states [R, hidden] that predict the response, by the causal_lm's own forward."""
    ids = np.concatenate([item.prompt_ids, item.response_ids[:-1]])
    hidden = causal_lm.hidden_states(torch.from_numpy(ids)[None].to(causal_lm.device.device))
    return hidden[0, len(item.prompt_ids) - 1 :]
