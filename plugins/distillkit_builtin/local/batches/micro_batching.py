"""Which sequences are computed together: micro-batches of padded or of packed sequences, and shares of about one size.

All functions return groups of indices into what they are given.
"""

from collections.abc import Iterator, Sequence

from distillkit_builtin.local.batches.shared_prompts import DistinctPrompts
from distillkit_builtin.local.model.causal_lm import PromptAndResponse

MAX_PADDING = 0.1
"""The share of a micro-batch that may be padding, once it is large enough to keep the device busy."""
LARGE_ENOUGH = 512
"""Tokens."""


def padded_micro_batches(lengths: Sequence[int], max_tokens: int, *, one_length: bool = False) -> list[list[int]]:
    """Groups of similar length whose padded size is at most `max_tokens` (or a single item).

    `one_length`: nothing is padded, all of a group have the same.
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        tokens += lengths[index]
        padded = lengths[index] * (len(groups[-1]) + 1) if groups else 0
        padding, allowed = padded - tokens, MAX_PADDING * padded if padded > LARGE_ENOUGH else padded
        if groups and padded <= max_tokens and padding <= (0 if one_length else allowed):
            groups[-1].append(index)
        else:
            groups.append([index])
            tokens = lengths[index]
    return groups


def packed_micro_batches(items: Sequence[PromptAndResponse], max_tokens: int) -> list[list[int]]:
    """Few groups of about the same number of tokens, at most `max_tokens` each (or a single item).

    Items that share a prompt stay together as far as that goes, and count as if each had its own.
    """
    members = DistinctPrompts.of(item.prompt_ids for item in items).members
    units = [unit for family in members for unit in _split_family(family, items, max_tokens)]
    sizes = [sum(len(items[i]) for i in unit) for unit in units]
    alone = [unit for unit, size in zip(units, sizes, strict=True) if size > max_tokens]
    rest = [at for at, size in enumerate(sizes) if size <= max_tokens]
    parts = -(-sum(sizes[at] for at in rest) // max_tokens)
    while True:
        groups = [[rest[i] for i in group] for group in balanced_shares([sizes[at] for at in rest], parts) if group]
        if all(sum(sizes[at] for at in group) <= max_tokens for group in groups):
            return sorted(alone + [sorted(i for at in group for i in units[at]) for group in groups])
        parts += 1


def _split_family(family: Sequence[int], items: Sequence[PromptAndResponse], max_tokens: int) -> Iterator[list[int]]:
    """Parts of the items of one prompt that fit, in order."""
    part: list[int] = []
    for i in family:
        if part and sum(len(items[j]) for j in part) + len(items[i]) > max_tokens:
            yield part
            part = []
        part.append(i)
    yield part


def balanced_shares(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """`parts` groups of about the same sum, each in order; of few lengths some groups are empty.

    The longest goes first, each to the group that is lightest so far (Graham's rule: at most 4/3 of the best,
    https://doi.org/10.1137/0117039).
    """
    groups: list[list[int]] = [[] for _ in range(parts)]
    sums = [0] * parts
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        lightest = min(range(parts), key=sums.__getitem__)
        groups[lightest].append(index)
        sums[lightest] += lengths[index]
    return [sorted(group) for group in groups]
