"""What the engine adds to saving: checksums of the student's files, and completions in flight."""

import json
import os
from pathlib import Path

from benchmarks.engine.data import best
from benchmarks.engine.instant import IDS, SAMPLED, SCORED
from distillkit.files.atomic import checksums
from distillkit.loop.outcomes import Outcomes, WindowRequests
from distillkit.run_directory.checkpoint import CHECKSUMS
from distillkit.run_directory.codec import to_json
from distillkit.run_directory.rollout_codec import InFlight
from distillkit.testing import make_rollout, make_row, make_scored


def sums(folder: Path, gibibytes: int, repeats: int) -> float:
    """Seconds a GiB of one file, once it is written."""
    (folder / "student").mkdir(parents=True, exist_ok=True)
    block = os.urandom(2**24)
    with (folder / "student" / "model.safetensors").open("wb") as file:
        for _ in range(gibibytes * 2**30 // len(block)):
            file.write(block)
    return best(lambda: checksums(folder, CHECKSUMS), repeats) / gibibytes


def in_flight(completions: int, repeats: int) -> float:
    """Seconds a completion of 256 tokens that a checkpoint holds, until it is JSON."""
    row = make_row()
    scored = tuple(
        make_scored(make_rollout(IDS.tolist(), SAMPLED, row=row, sample=i), SCORED, row=row) for i in range(completions)
    )
    outcomes = Outcomes(scored, (), tuple(one.rollout for one in scored), 0.0, 0.0)
    work = WindowRequests({}, ())
    return best(lambda: json.dumps(to_json(InFlight.of(work, outcomes))), repeats) / completions
