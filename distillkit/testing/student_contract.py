"""What losses and students owe each other."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from distillkit.arrays import frozen_array
from distillkit.records import Batch, Datum, Rollout, ScoredRollout
from distillkit.roles.loss import Loss
from distillkit.roles.student import Student
from distillkit.testing.builders import make_rollout, make_row, make_scored
from distillkit.testing.require import require


def made_up_scores() -> list[ScoredRollout]:
    """Three completions of different lengths; one has a masked token."""
    rows = [make_row(f"question {line}", line=line) for line in (1, 2, 3)]
    rollouts = [
        make_rollout([65, 66, 67], [-1.0, -2.0, -0.5], row=rows[0]),
        make_rollout([70], [-0.1], row=rows[1]),
        make_rollout([80, 81], [-3.0, -1.0], row=rows[2], mask=[True, False]),
    ]
    theirs = [[-0.5, -2.5, -0.5], [-4.0], [-1.0, -1.0]]
    return [make_scored(r, logprobs, row=row) for r, logprobs, row in zip(rollouts, theirs, rows, strict=True)]


def check_loss(loss: Loss) -> None:
    """It makes one datum a rollout, in order, with finite inputs a token and no weight on masked tokens."""
    scored = made_up_scores()
    batch = loss.batch(scored)
    require(loss.loss_function, loss, "has no `loss_function`, the name by which students know it")
    require(batch.loss_function == loss.loss_function, loss, f"makes batches for {batch.loss_function!r}")
    require(dict(batch.options) == dict(loss.options()), loss, "gives a batch other options than `options()` says")
    require([datum.key for datum in batch.datums] == [one.key for one in scored], loss, "changes the order of the data")
    for datum, one in zip(batch.datums, scored, strict=True):
        require("weights" in datum.inputs, loss, "gives a datum no `weights`; they are the normalization")
        for name, array in datum.inputs.items():
            require(len(array) == len(one.rollout.token_ids), loss, f"input {name!r}: its first axis is not tokens")
            require(np.isfinite(array).all(), loss, f"input {name!r} is not finite; masked positions need a number too")
        masked = datum.inputs["weights"][~one.rollout.active]
        require(not masked.any(), loss, "gives weight to a token that the policy did not sample")


async def check_student(student: Student, rollouts: list[Rollout]) -> None:
    """It trains, and what it saved brings it back."""
    for options in student.loss_functions().values():
        require(isinstance(options, frozenset), student, "loss_functions() must map names to frozensets of options")
    if "importance_sampling" in student.loss_functions():
        result = await student.train(_batch(rollouts))
        finite = all(math.isfinite(value) for value in result.metrics.values())
        require(finite, student, f"reports metrics that are no finite numbers: {dict(result.metrics)}")
    with TemporaryDirectory() as folder:
        await student.save(Path(folder))
        require(any(Path(folder).iterdir()), student, "`save` wrote nothing")
        if student.loads_in_place and "importance_sampling" in student.loss_functions():
            await student.train(_batch(rollouts))
        await student.load(Path(folder))
        if student.loads_in_place:
            with TemporaryDirectory() as again:
                await student.save(Path(again))
                same = _content(Path(again)) == _content(Path(folder))
            require(same, student, "`loads_in_place`, and is not what it was when it was saved after `load`")
        exported = await student.export(Path(folder))
        require(exported.exists(), student, f"`export` returned {exported}, which is not there")


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _batch(rollouts: list[Rollout]) -> Batch:
    datums = [
        Datum(
            one.key,
            one.request.prompt_ids,
            one.token_ids,
            {
                "sampling_logprobs": one.logprobs,
                "advantages": frozen_array(np.full(len(one.token_ids), 0.01), np.float32),
                "weights": frozen_array(np.full(len(one.token_ids), 1.0), np.float32),
            },
        )
        for one in rollouts
    ]
    return Batch("importance_sampling", {"ratio_log_cap": 20.0}, tuple(datums))
