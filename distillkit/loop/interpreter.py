"""How Python itself works during a run: what its garbage collections read, and how its threads take turns."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TURN_SECONDS = 0.0002


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


@contextmanager
def short_turns() -> Iterator[None]:
    """Let no thread keep the others from Python for longer than `TURN_SECONDS` while the block runs.

    A device's thread gives Python up in every call of PyTorch, and where another one renders prompts meanwhile it gets
    it back when that one's turn ends: by Python's own interval of 5 ms a round of tokens, a dozen calls, was begun 43
    to 62 ms late, by this one 4 (benchmarks/NOTES.md). A shorter interval that somebody set already stays.
    """
    before = sys.getswitchinterval()
    if before <= TURN_SECONDS:  # setting it again would round it down
        yield
        return
    sys.setswitchinterval(TURN_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
