"""Many families in a few processes, each of which has everything imported once."""

import logging
import multiprocessing
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from distillkit.errors import error_text
from families.catalogue import FAMILIES
from families.measure import measure
from families.measurement import Measurement, Trial
from families.trial_config import MODES


def measure_all(names: Sequence[str], workers: int) -> Iterator[Measurement]:
    """Each family in a folder of its own, in the order in which they end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _quieten) as pool:
        futures = {pool.submit(_measured, name): name for name in names}
        for future in as_completed(futures):
            yield _result(future, futures[future])


def _result(future: "Future[Measurement]", name: str) -> Measurement:
    try:
        return future.result()
    except BrokenProcessPool:
        return _failed(name, "its process, or that of a family beside it, was killed")


def _measured(name: str) -> Measurement:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return measure(name, Path(folder))
        except Exception as error:  # noqa: BLE001 - a tiny model that cannot be made is no reason to measure no other
            return _failed(name, f"no tiny model: {error_text(error)}")


def _failed(name: str, why: str) -> Measurement:
    return Measurement(name, FAMILIES[name].kind, {mode: Trial(failed=why) for mode in MODES})


def _quieten() -> None:
    """Nothing but the table is of use on the terminal: libraries say much of models as small and random as these."""
    import torch
    import transformers

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
