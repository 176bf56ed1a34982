"""Ranks that find different things about one model compute it in one way all the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.torchrun import finished, torchrun

import distillkit
from builtin.local.ranks.rank_metrics import SAME, metrics
from distillkit import RunConfig
from distillkit.testing import make_context
from distillkit_builtin.local.live_student import LiveLocalStudent, load_proved
from distillkit_builtin.local.model.batching import ONE_LENGTH, TOGETHER
from distillkit_builtin.local.options import LocalStudentOptions
from distillkit_builtin.local.ranks.agreement import Ways, difference, plainest

FAST = Ways(TOGETHER, packs=True, not_packed=None, whole=True)
REFUSING = """
import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from distillkit_builtin.local import build_student
from distillkit_builtin.local.training import policy
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.scorer import LocalScorer

def refuse(causal_lm):
    raise UnsupportedModelError("rounding is otherwise here")

def proved_otherwise(causal_lm, original=build_student.proved):
    causal_lm = original(causal_lm)
    causal_lm.batching = replace(causal_lm.batching, left_padding=False)
    return causal_lm

if os.environ["RANK"] == "0":
    build_student.proved = proved_otherwise
else:
    policy.require_packable = refuse

async def tell_ways(student, original=LiveLocalStudent.take_broadcast):
    found = (student.policy.packs, student.policy.causal_lm.batching, student.sampling.copy.causal_lm.batching)
    Path("FOLDER", "rank-" + os.environ["RANK"]).write_text(repr(found))
    await original(student)

LiveLocalStudent.take_broadcast = tell_ways

class Unused(LocalScorer):
    name: ClassVar[str] = "unused"
"""


def test_the_plainest_is_what_every_rank_may_do() -> None:
    padded = replace(FAST, packs=False, not_packed="rounding")
    by_length = replace(FAST, batching=replace(TOGETHER, right_padding=False, shared_prefix=False))
    assert plainest([FAST, FAST]) == FAST
    assert plainest([FAST, padded]) == plainest([padded, FAST]) == padded
    assert plainest([FAST, by_length, padded]) == replace(padded, batching=by_length.batching)
    assert plainest([FAST, replace(FAST, whole=False)]).whole is False


def test_what_ranks_differ_in_is_said_and_nothing_else() -> None:
    plain = Ways(ONE_LENGTH, packs=False, not_packed="rounding", whole=True)
    assert difference([FAST, FAST], "Tiny") is None
    assert difference([plain, plain], "Tiny") is None
    note = difference([FAST, replace(FAST, packs=False), replace(FAST, packs=False)], "Tiny")
    assert note is not None
    assert "without sequences packed in training (not on rank 1, 2)" in note
    for way in plain.faster().keys() - {"sequences packed in training"}:
        assert way not in note
    assert str(difference([FAST, plain], "Tiny")).count("not on rank 1") == 4


@pytest.mark.parametrize("lora_rank", [0, 4])
async def test_a_student_is_built_in_the_way_that_all_agreed_on(tiny_model: str, lora_rank: int) -> None:
    run = make_context()
    options = LocalStudentOptions(model=tiny_model, dtype="float32", device="cpu", lora_rank=lora_rank)
    proved = await load_proved(run, options, samples=True)
    assert (proved.ways.packs, proved.ways.batching) == (True, TOGETHER)
    agreed = Ways(ONE_LENGTH, packs=False, not_packed="another rank's reason", whole=True)
    live = await LiveLocalStudent.build(run, options, proved, agreed)
    assert live.policy.packs is False
    assert live.sampling is not None
    for causal_lm in (live.policy.causal_lm, live.sampling.copy.causal_lm, live.sampling.inference.causal_lm):
        assert causal_lm.batching == ONE_LENGTH


@pytest.mark.ranks
def test_sharded_ranks_that_find_different_ways_take_the_plainest(
    local_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """One cannot pack, the other cannot pad prompts: neither is done."""
    student = {"lora_rank": 0, "learning_rate": 0.01, "micro_batch_tokens": 60}
    over: dict[str, Any] = {"student": student, "train": {"prompt_groups_per_step": 2, "max_steps": 1}}
    alone = distillkit.run(local_config(name="alone", **over))
    config, script = tmp_path / "both.yaml", tmp_path / "refusing.py"
    config.write_text(yaml.safe_dump(local_config(name="both", **over).dump()))
    script.write_text(REFUSING.replace("FOLDER", str(tmp_path)))
    code, output = finished(torchrun(2, str(config), "-p", str(script), "student.shard=always"))
    assert code == 0, output
    log = (alone.run_dir.parent / "both" / "run.log").read_text()
    assert log.count("sequences packed in training (not on rank 1)") == 1
    assert log.count("prompts of different lengths sampled together (not on rank 0)") == 1
    assert log.count("sequences are padded in training, not packed: rounding is otherwise here") == 1
    batching = replace(TOGETHER, left_padding=False)
    for rank in (0, 1):
        assert (tmp_path / f"rank-{rank}").read_text() == repr((False, batching, batching))
    for line, expected in zip(metrics(alone.run_dir.parent / "both"), alone.metrics, strict=True):
        for name in SAME if line["step"] else ():
            assert line[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-4), (line["step"], name)
