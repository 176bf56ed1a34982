"""One run in several processes, which torchrun starts as a user would: gloo on the CPU, NCCL where there is CUDA."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from helpers.torchrun import FORCED, finished, kill, torchrun, until
from transformers import AutoModelForCausalLM

import distillkit
from builtin.local.ranks.rank_metrics import SAME, metrics
from distillkit import RunConfig
from distillkit.context import SharedObjects
from distillkit.preflight.prepared_run import context_for
from distillkit_builtin.local.ranks.worker_state import WorkerState

Make = Callable[..., RunConfig]
SLOW_SCORER = """
import asyncio
from pathlib import Path
from typing import ClassVar
from distillkit_builtin.local.scorer import LocalScorer

class Slow(LocalScorer):
    name: ClassVar[str] = "slow"

    async def score(self, requests):
        Path("WAITING").touch()
        await asyncio.sleep(600)
        async for score in super().score(requests):
            yield score
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[RunConfig], str]:
    """The config as a file."""

    def dump(config: RunConfig) -> str:
        path = tmp_path / f"{config.name}.yaml"
        path.write_text(yaml.safe_dump(config.dump()))
        return str(path)

    return dump


@pytest.mark.ranks
def test_two_ranks_train_all_weights_as_one(local_config: Make, write: Callable[[RunConfig], str]) -> None:
    train = {"prompt_groups_per_step": 2, "route_gradients_every": 2}
    over = {"student": {"lora_rank": 0, "learning_rate": 0.01}, "train": train}
    alone = distillkit.run(local_config(name="alone", **over))
    code, output = finished(torchrun(2, write(local_config(name="both", **over)), "student.shard=never"))
    assert code == 0, output
    for line, expected in zip(metrics(alone.run_dir.parent / "both"), alone.metrics, strict=True):
        for name in SAME:
            assert line[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-4), (line["step"], name)
        norms = [{name: row[name] for name in row if name.endswith("/grad_norm")} for row in (line, expected)]
        assert norms[0] == pytest.approx(norms[1], rel=1e-2)
        assert len(norms[0]) == (2 if line["step"] % 2 == 0 else 1)


@pytest.mark.ranks
def test_two_ranks_train_as_one_and_either_goes_on_from_the_others_checkpoint(
    local_config: Make, write: Callable[[RunConfig], str]
) -> None:
    over = {
        "data": {"eval_path": local_config().data.path, "max_eval_rows": 3},
        "train": {"prompt_groups_per_step": 2, "save_every": 1},
        "evaluators": ["reverse_kl"],
    }
    alone = distillkit.run(local_config(name="alone", **over))
    config = write(local_config(name="both", **over))
    code, output = finished(torchrun(2, config, "train.max_steps=2"))
    assert code == 0, output
    assert output.count("done: 2 steps") == 1  # one process speaks
    assert (
        "2 ranks, this one on cpu; the student is whole on each" in (alone.run_dir.parent / "both/run.log").read_text()
    )
    both = alone.run_dir.parent / "both"
    for step in alone.metrics[:3]:
        one = next(line for line in metrics(both) if line["step"] == step["step"])
        for name in SAME if step["step"] else ():
            assert one[name] == pytest.approx(step[name], rel=1e-3, abs=1e-5), (step["step"], name)
    resumed = distillkit.run(local_config(name="both", **over), resume=True)  # alone, from what two had saved
    code, output = finished(torchrun(2, config, "name=again", "train.max_steps=2"))
    assert code == 0, output
    code, output = finished(torchrun(2, config, "name=again", "--resume"))
    assert code == 0, output
    for run_dir in (resumed.run_dir, alone.run_dir.parent / "again"):
        last = metrics(run_dir)[-1]
        for name in SAME:
            assert last[name] == pytest.approx(alone.metrics[-1][name], rel=2e-3, abs=1e-5), (run_dir, name)


@pytest.mark.ranks
def test_sharded_weights_are_trained_saved_and_exported_as_whole_ones(
    local_config: Make, write: Callable[[RunConfig], str]
) -> None:
    student = {"lora_rank": 0, "learning_rate": 0.01, "micro_batch_tokens": 100}
    over = {"student": student, "train": {"prompt_groups_per_step": 2, "save_every": 1}}
    alone = distillkit.run(local_config(name="alone", **over))
    config = write(local_config(name="parts", **over))
    code, output = finished(
        torchrun(2, config, "student.shard=always", "train.max_steps=2", "train.route_gradients_every=1")
    )
    assert code == 0, output
    log = (alone.run_dir.parent / "parts/run.log").read_text()
    assert log.count("cannot measure gradients by route in this run") == 1
    code, output = finished(torchrun(2, config, "student.shard=always", "--resume"))
    assert code == 0, output
    run_dir = alone.run_dir.parent / "parts"
    for line, expected in zip(metrics(run_dir), alone.metrics, strict=True):
        for name in SAME:
            assert line[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-4), (line["step"], name)
    mine, theirs = (AutoModelForCausalLM.from_pretrained(path / "model") for path in (run_dir, alone.run_dir))
    for (name, ours), (_, whole) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(ours, whole, atol=2e-3), name
    assert abs(size(run_dir) - size(alone.run_dir)) < 1000  # a head that is tied to the embeddings is written once
    resumed = distillkit.run(local_config(name="parts", **over, data={"epochs": 2}), resume=True, force=True)
    assert resumed.steps > alone.steps  # alone, from a checkpoint of parts


def size(run_dir: Path) -> int:
    return (run_dir / "model" / "model.safetensors").stat().st_size


@pytest.fixture
def hanging(local_config: Make, tmp_path: Path, other_tiny_model: str) -> Iterator["subprocess.Popen[str]"]:
    """A run on two ranks that waits for its teacher."""
    script, waiting = tmp_path / "slow.py", tmp_path / "waiting"
    script.write_text(SLOW_SCORER.replace("WAITING", str(waiting)))
    values = local_config(name="slow").dump()
    values["teachers"][0]["scorer"]["name"] = "slow"
    path = tmp_path / "slow.yaml"
    path.write_text(yaml.safe_dump(values))
    process = torchrun(2, str(path), "-p", str(script), start_new_session=True)
    try:
        until(waiting.exists)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.ranks
def test_a_rank_that_is_killed_ends_the_run_with_its_reason(hanging: "subprocess.Popen[str]", tmp_path: Path) -> None:
    kill(hanging, 1)
    output, _ = hanging.communicate(timeout=180)
    assert hanging.returncode == 1
    assert FORCED not in output
    assert "failed: rank 1 of 2 is gone" in output
    summary = json.loads((tmp_path / "runs/slow/summary.json").read_text())
    assert summary["status"] == "failed"
    assert "rank 1 of 2 is gone" in summary["error"]
    assert summary["rows"] == summary["failed_rows"] > 0  # nothing is lost


@pytest.mark.ranks
def test_wrong_input_ends_all_ranks_at_once(local_config: Make, write: Callable[[RunConfig], str]) -> None:
    process = torchrun(2, write(local_config()), "data.path=nowhere.jsonl")
    code, output = finished(process)
    assert code == 1
    assert FORCED not in output
    assert output.count("error: data.path: nowhere.jsonl: no such file") == 1


@pytest.mark.ranks
def test_without_rank_0_the_others_end_too(hanging: "subprocess.Popen[str]") -> None:
    kill(hanging, 0)
    output, _ = hanging.communicate(timeout=180)
    assert hanging.returncode == 1
    assert FORCED not in output


class Unable:
    """A connection that cannot send what it is given."""

    rank = 1

    def send(self, rank: int, message: object) -> None:
        raise TypeError("cannot pickle 'module' object")


async def test_a_result_that_cannot_be_sent_is_not_waited_for_in_vain(local_config: Make) -> None:
    inbox: asyncio.Queue[object] = asyncio.Queue()
    context = context_for("student", local_config(), SharedObjects(), print)
    state = WorkerState(context, local_config().student, True, Unable(), inbox)  # type: ignore[arg-type]
    state.send("something")
    received = await asyncio.wait_for(inbox.get(), 5)
    assert isinstance(received, TypeError)  # which ends `run_worker`, and with it this rank
    state.close()
