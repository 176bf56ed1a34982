"""What a student owes the engine while it is open: it trains, and what it saved brings it back."""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from distillkit.records import Rollout, Weights
from distillkit.roles.student import Student
from distillkit.testing.builders import require
from distillkit.testing.synthetic_batches import make_batch
from distillkit.training_data import Batch


async def check_student(student: Student, rollouts: Sequence[Rollout], batch: Batch | None) -> None:
    """Train on `batch` (None: what can be made of `rollouts`), save, load, export and publish.

    Raises PluginError where nothing can be made that it could train on, or where it breaks its contract.
    """
    for options in student.loss_functions().values():
        require(isinstance(options, frozenset), student, "loss_functions() must map names to frozensets of options")
    batch = make_batch(student, rollouts) if batch is None else batch
    result = await student.train(batch)
    finite = all(math.isfinite(value) for value in result.metrics.values())
    require(finite, student, f"reports metrics that are no finite numbers: {dict(result.metrics)}")
    with TemporaryDirectory() as folder:
        await _check_files(student, Path(folder))
    weights = await student.publish(1)
    require(weights == Weights(1, weights.format, weights.path), student, "`publish` returned another version")


async def _check_files(student: Student, folder: Path) -> None:
    await student.save(folder)
    require(any(folder.iterdir()), student, "`save` wrote nothing")
    await student.load(folder)
    exported = await student.export(folder)
    require(exported.exists(), student, f"`export` returned {exported}, which is not there")
