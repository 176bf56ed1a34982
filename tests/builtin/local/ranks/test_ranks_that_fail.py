"""A run in several processes that loses a process, or its teacher's server, keeps the steps that it had trained."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import read_jsonl
from helpers.torchrun import FORCED, finished, kill, torchrun, until
from loopback.openai.wire import COMPLETIONS, Serve

from distillkit import RunConfig
from distillkit.run_directory.checkpoint import checkpoints, step_of
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.network_model import NetworkModel

pytestmark = pytest.mark.ranks
Make = Callable[..., RunConfig]
WAITS = '''
import asyncio
from pathlib import Path
from typing import ClassVar
from distillkit_builtin.local.scorer import LocalScorer

class Waits(LocalScorer):
    """Waits at the third step, unless the file `go` is there."""

    name: ClassVar[str] = "waits"

    async def score(self, requests):
        if requests[0].rollout.policy_version == 2 and not Path("FOLDER/go").exists():
            Path("FOLDER/waiting").touch()
            await asyncio.sleep(600)
        async for score in super().score(requests):
            yield score
'''


class Files:
    """A config and a script in files; where its run is."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder
        self.script, self.config = folder / "waits.py", folder / "config.yaml"
        self.script.write_text(WAITS.replace("FOLDER", str(folder)))
        values = config.dump()
        values["teachers"][0]["scorer"]["name"] = "waits"
        self.config.write_text(yaml.safe_dump(values))

    @property
    def words(self) -> tuple[str, ...]:
        return str(self.config), "-p", str(self.script)

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name


@pytest.fixture
def files(local_config: Make, tmp_path: Path) -> Files:
    train = {"prompt_groups_per_step": 2, "save_every_minutes": 0}
    return Files(tmp_path, local_config(train=train))


def trained(run_dir: Path) -> tuple[list[dict[str, Any]], str, list[Any]]:
    """What a run came to: metrics but for times, ledger, and the tokens that were trained."""
    metrics = [
        {name: value for name, value in row.items() if name.startswith(("train/", "completions/"))}
        for row in read_jsonl(run_dir / "metrics.jsonl")
    ]
    tokens = [sample["token_ids"] for sample in read_jsonl(run_dir / "samples.jsonl")]
    return metrics, (run_dir / "ledger.jsonl").read_text(), tokens


def steps(run_dir: Path) -> list[int]:
    return [step_of(path) for path in checkpoints(run_dir)]


def resumed(output: str) -> tuple[int, str]:
    """Start what the last line says, as it stands there."""
    lines = iter(output.splitlines())
    command = next(next(lines) for line in lines if line.startswith("go on after step 2 with:"))
    words = shlex.split(command)
    assert words[:6] == ["torchrun", "--nproc-per-node", "2", "-m", "distillkit", "run"]
    assert words[-1] == "--resume"
    return finished(torchrun(2, *words[6:]))


def test_a_rank_that_is_killed_costs_the_step_in_hand_alone(files: Files, tmp_path: Path) -> None:
    process = torchrun(2, *files.words, "name=parts", start_new_session=True)
    until((tmp_path / "waiting").exists)
    kill(process, 1)
    code, output = finished(process)
    assert (code, FORCED in output) == (1, False)
    assert "failed: rank 1 of 2 is gone" in output
    assert steps(files.run("parts")) == [2]
    assert "step 2, the last good one, is saved" in (files.run("parts") / "run.log").read_text()
    assert "go on after step 2 with:\n  torchrun" in output
    (tmp_path / "go").touch()
    code, output = resumed(output)
    assert code == 0, output
    code, output = finished(torchrun(2, *files.words, "name=whole"))
    assert code == 0, output
    assert trained(files.run("parts")) == trained(files.run("whole"))


def test_sharded_weights_of_a_rank_that_is_gone_cannot_be_saved_and_that_is_said(files: Files, tmp_path: Path) -> None:
    shards = ("student.lora_rank=0", "student.shard=always")
    process = torchrun(2, *files.words, "name=parts", *shards, start_new_session=True)
    until((tmp_path / "waiting").exists)
    kill(process, 1)
    code, output = finished(process)
    assert (code, FORCED in output) == (1, False)
    assert "go on " not in output
    assert not steps(files.run("parts"))
    log = (files.run("parts") / "run.log").read_text()
    assert "step 2 is not saved: RunFailedError: rank 1 of 2 is gone" in log
    assert "; there is no checkpoint to resume from (train.save_every and save_every_minutes write some" in log


def test_a_run_whose_teachers_server_died_goes_on_with_the_command_that_it_said(
    files: Files, serve: Serve, other_tiny_model: str
) -> None:
    server = serve(NetworkModel.load(other_tiny_model))
    scorer = {"name": "http", "base_url": server.url, "timeouts": {"retry": 0.2}}
    teacher = {"model": "loopback", "tokenizer_model": other_tiny_model, "scorer": scorer}
    words = (str(files.config), f"teachers={json.dumps([teacher])}")
    code, output = finished(torchrun(2, *words, "name=whole"))
    assert code == 0, output
    asked = server.traffic.counts[COMPLETIONS] - 16  # what it is asked before the first step
    server.faults.add(faults.Hangup(), where=COMPLETIONS, after=asked + 8, times=None)
    code, output = finished(torchrun(2, *words, "name=parts"))
    assert code == 1
    assert "failed: step 3: all 4 completions failed, also when tried once more" in output
    assert "go on after step 2 with:\n  torchrun" in output
    assert steps(files.run("parts")) == [2]
    server.faults.clear()
    code, output = resumed(output)
    assert code == 0, output
    (parts, *ledger), (whole, *expected) = trained(files.run("parts")), trained(files.run("whole"))
    assert ledger == expected
    assert parts == [pytest.approx(step, rel=1e-3, abs=1e-5) for step in whole]  # what a server batches, it rounds so
