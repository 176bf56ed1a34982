"""Garbage collection during a run: of what the run makes, not again and again of all that was imported for it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loaded_objects_left_alone() -> Iterator[None]:
    """Keep all objects that there are by now out of garbage collections while the block runs.

    Modules and models are some 270,000 objects and more, and a full collection reads them all: 0.1 s every few hundred
    completions. What is garbage by now is collected first. Where something is frozen already (`gc.freeze`), whoever did
    that decides, and nothing is changed.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
