"""`datasets` and `huggingface_hub` without their progress bars and advice."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("datasets", "huggingface_hub", "fsspec")


@contextmanager
def quiet() -> Iterator[None]:
    """While this lasts they print nothing: what goes wrong is raised, and said once, in our words."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub import utils as hub

    were_off, hubs_were_off = are_progress_bars_disabled(), hub.are_progress_bars_disabled()
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    disable_progress_bars()
    hub.disable_progress_bars()
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if not were_off:
            enable_progress_bars()
        if not hubs_were_off:
            hub.enable_progress_bars()
