"""Held-out rows that are taken out of the rows to train on, where there is no second file of them."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np

from distillkit.arrays import IntArray
from distillkit.data.indexed_rows import IndexedRows
from distillkit.errors import DataError
from distillkit.seeds import derive_seed

Fits = Callable[[Sequence[int]], Sequence[bool]]
"""Whether the rows at some positions are rows of the run."""
BATCH = 128
"""How many rows are asked about at once."""


def split_rows(rows: IndexedRows, count: int, seed: int, fits: Fits | None = None) -> tuple[IndexedRows, IndexedRows]:
    """The rows to train on, and `count` of those that fit, which are held out; both in the order that they had.

    Which ones is decided by the seed and a row's content: rows may be put in another order, or more be added, and what
    was held out nearly stays so; rows of the same content stay together if they can. Raises DataError if there are not
    as many, or none are left.
    """
    if count >= len(rows):
        raise DataError(
            f"{rows.place}: data.held_out_rows={count} leaves none of {len(rows):,} rows to train on; hold out fewer"
        )
    chosen = np.zeros(len(rows), dtype=np.bool_)
    left, too_many = count, list[IntArray]()
    for same in _fitting(_groups(_mixed(rows.content_hashes, seed)), fits):
        if len(same) > left:
            too_many += [same] if len(too_many) < left else []
            continue
        chosen[same] = True
        left -= len(same)
        if not left:
            break
    for same in too_many:  # only where nothing else fills the number
        chosen[same[:left]] = True
        left -= min(left, len(same))
    if left:
        raise DataError(
            f"{rows.place}: data.held_out_rows={count} is more than the {count - left:,} of {len(rows):,} rows whose "
            "prompts data.max_prompt_tokens lets through; hold out fewer, or let longer prompts through"
        )
    return rows.at(np.flatnonzero(~chosen)), rows.at(np.flatnonzero(chosen))


def _groups(mixed: np.ndarray) -> Iterator[IntArray]:
    """The positions of each number, from the smallest number on."""
    order = np.argsort(mixed, kind="stable")
    ordered = mixed[order]
    start = 0
    for end in (*(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1), len(order)):
        yield order[start:end]
        start = end


def _fitting(groups: Iterator[IntArray], fits: Fits | None) -> Iterator[IntArray]:
    """Those of the groups whose rows fit, which are alike."""
    if fits is None:
        yield from groups
        return
    while batch := list(islice(groups, BATCH)):
        yield from (same for same, fit in zip(batch, fits([int(same[0]) for same in batch]), strict=True) if fit)


def _mixed(hashes: np.ndarray, seed: int) -> np.ndarray:
    """[N] 64 bits of each hash and the seed: the last steps of SplitMix64, which send no two hashes to one."""
    mixed = hashes.astype(np.uint64) ^ np.uint64(derive_seed(seed, "held out"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
