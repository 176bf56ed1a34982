"""Held-out rows that are taken out of the rows to train on, where there is no second file of them."""

import numpy as np

from distillkit.data.indexed_rows import IndexedRows
from distillkit.errors import DataError
from distillkit.seeds import derive_seed


def split_rows(rows: IndexedRows, count: int, seed: int) -> tuple[IndexedRows, IndexedRows]:
    """The rows to train on, and `count` that are held out, both in the order that they had.

    Which ones is decided by the seed and a row's content: rows may be put in another order, or more be added, and what
    was held out nearly stays so; rows of the same content stand together. Raises DataError if none are left.
    """
    if count >= len(rows):
        raise DataError(
            f"{rows.place}: data.held_out_rows={count} leaves none of {len(rows):,} rows to train on; hold out fewer"
        )
    chosen = np.zeros(len(rows), dtype=np.bool_)
    chosen[np.argsort(_mixed(rows.content_hashes, seed), kind="stable")[:count]] = True
    return rows.at(np.flatnonzero(~chosen)), rows.at(np.flatnonzero(chosen))


def _mixed(hashes: np.ndarray, seed: int) -> np.ndarray:
    """[N] 64 bits of each hash and the seed: the last steps of SplitMix64, which send no two hashes to one."""
    mixed = hashes.astype(np.uint64) ^ np.uint64(derive_seed(seed, "held out"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
