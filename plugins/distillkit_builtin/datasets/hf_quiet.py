"""`datasets` and `huggingface_hub` without their progress bars and advice."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("datasets", "huggingface_hub", "fsspec")


@contextmanager
def quiet() -> Iterator[None]:
    """While this lasts they print nothing: what goes wrong is raised, and said once, in our words."""
    with _without_progress(), _without_logs():  # in this order: `datasets` sets its level when it is imported
        yield


@contextmanager
def _without_logs() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _without_progress() -> Iterator[None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled as are_the_hubs_disabled
    from huggingface_hub.utils.tqdm import disable_progress_bars as disable_the_hubs
    from huggingface_hub.utils.tqdm import enable_progress_bars as enable_the_hubs

    bars = (
        (are_progress_bars_disabled(), disable_progress_bars, enable_progress_bars),
        (are_the_hubs_disabled(), disable_the_hubs, enable_the_hubs),
    )
    for were_off, disable, _ in bars:
        if not were_off:
            disable()
    try:
        yield
    finally:
        for were_off, _, enable in bars:
            if not were_off:
                enable()
