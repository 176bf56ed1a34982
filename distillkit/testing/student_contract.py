"""What a student owes the engine while it is open: it trains, and what it saved brings it back."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from distillkit.records import Rollout, Weights
from distillkit.roles.student import Student
from distillkit.testing.builders import require
from distillkit.testing.held_to import awaited, given, held_to
from distillkit.testing.synthetic_batches import make_batch
from distillkit.training_data import Batch, StepResult


async def check_student(student: Student, rollouts: Sequence[Rollout], batch: Batch | None) -> None:
    """Train on `batch` (None: what can be made of `rollouts`), save, load, export and publish.

    Raises PluginError where nothing can be made that it could train on, or where it breaks its contract.
    """
    with held_to(student, "loss_functions"):
        for options in given(student, "loss_functions", student.loss_functions(), Mapping).values():
            require(isinstance(options, frozenset), student, "loss_functions() must map names to frozensets of options")
    batch = make_batch(student, rollouts) if batch is None else batch
    result = given(student, "train", await awaited(student, "train", student.train(batch)), StepResult)
    finite = all(math.isfinite(value) for value in result.metrics.values())
    require(finite, student, f"reports metrics that are no finite numbers: {dict(result.metrics)}")
    with TemporaryDirectory() as folder:
        await _check_files(student, Path(folder))
    weights = given(student, "publish", await awaited(student, "publish", student.publish(1)), Weights)
    require(weights == Weights(1, weights.format, weights.path), student, "`publish` returned another version")


async def _check_files(student: Student, folder: Path) -> None:
    await awaited(student, "save", student.save(folder))
    require(any(folder.iterdir()), student, "`save` wrote nothing")
    await awaited(student, "load", student.load(folder))
    exported = given(student, "export", await awaited(student, "export", student.export(folder)), Path)
    require(exported.exists(), student, f"`export` returned {exported}, which is not there")
