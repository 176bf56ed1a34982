"""One run on several hosts: two agents of torchrun that share no path but this machine's Python."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.torchrun import agent, finished, free_port, kill_host, until

import distillkit
from builtin.local.ranks.rank_metrics import SAME, metrics
from distillkit import RunConfig
from distillkit.run_directory.checkpoint import checkpoints, step_of

pytestmark = pytest.mark.ranks
Make = Callable[..., RunConfig]
SCRIPT = '''
"""A loss whose code travels by name, a scorer that can wait, and a name for each host."""
import asyncio
import os
import platform
from pathlib import Path
from typing import ClassVar
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

platform.node = lambda: "host-" + "ab"[int(os.environ.get("GROUP_RANK", "0"))]

def half(positions, options):
    return -0.5 * positions.logprobs * positions.inputs["advantages"]

class Half(ImportanceSampling):
    name: ClassVar[str] = "half"
    loss_function: ClassVar[str] = "half"

    def options(self):
        return {}

    def token_loss(self):
        return half

class Waits(LocalScorer):
    name: ClassVar[str] = "waits"

    async def score(self, requests):
        if requests[0].rollout.policy_version == 2 and Path("wait").exists():
            Path("waiting").touch()
            await asyncio.sleep(600)
        async for score in super().score(requests):
            yield score
'''
FROM_PYTHON = """
import json
import sys
import distillkit

result = distillkit.run(sys.argv[1], overrides=json.loads(sys.argv[2]), resume="--resume" in sys.argv)
print("RESULT", result.steps, result.summary["status"], len(result.metrics), result.adapter_path.name)
"""


@dataclass
class Host:
    """A folder with everything that one host has."""

    index: int
    folder: Path
    words: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, port: int, *words: str, program: tuple[str, ...]) -> "subprocess.Popen[str]":
        places = {"cwd": self.folder, "env": {**os.environ, **self.environment}}
        return agent(self.index, port, *program, *self.words, *words, **places)


@dataclass
class Hosts:
    """Two of them, whose processes are ended with the test."""

    pair: tuple[Host, Host]
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(
        self, *words: str, program: tuple[str, ...] = ("-m", "distillkit", "run")
    ) -> tuple["subprocess.Popen[str]", "subprocess.Popen[str]"]:
        port = free_port()
        first, second = (host.start(port, *words, program=program) for host in self.pair)
        self.started += [first, second]
        return first, second

    def run(self, *words: str, **options: Any) -> tuple[tuple[int, str], tuple[int, str]]:
        """What both came to: exit code and output."""
        first, second = self.start(*words, **options)
        return finished(first), finished(second)

    def end(self) -> None:
        for process in self.started:
            kill_host(process)
            process.communicate()


@pytest.fixture
def hosts(local_config: Make, tmp_path: Path, tiny_model: str, other_tiny_model: str) -> Iterator[Hosts]:
    """Config, script, models, caches and temporary files of each host lie in its folder; only the first has rows."""

    def host(name: str, index: int) -> Host:
        folder = tmp_path / name
        code, config = folder / f"code-{name}", folder / f"config-{name}"
        for path in (code, config, folder / "tmp"):
            path.mkdir(parents=True)
        (code / "both.py").write_text(SCRIPT)
        values = local_config().dump()
        values |= {"log_path": "runs/{name}", "plugins": [f"{code.name}/both.py"], "loss": {"name": "half"}}
        values["data"]["path"] = "rows.jsonl"
        values["student"]["model"] = f"student-of-{name}"
        values["teachers"][0] |= {"model": f"teacher-of-{name}"}
        values["teachers"][0]["scorer"]["name"] = "waits"
        shutil.copytree(tiny_model, folder / values["student"]["model"])
        shutil.copytree(other_tiny_model, folder / values["teachers"][0]["model"])
        (config / "run.yaml").write_text(yaml.safe_dump(values))
        places = {"HF_HOME": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
        return Host(index, folder, (f"{config.name}/run.yaml",), places)

    pair = host("first", 0), host("second", 1)
    shutil.copy(local_config().data.path, pair[0].folder / "rows.jsonl")
    made = Hosts(pair)
    yield made
    made.end()


def alone(hosts: Hosts, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> distillkit.RunResult:
    monkeypatch.chdir(hosts.pair[0].folder)
    return distillkit.run("config-first/run.yaml", overrides={"name": "alone", **overrides})


def require_same_numbers(run_dir: Path, expected: distillkit.RunResult, rel: float = 1e-3) -> None:
    for line, other in zip(metrics(run_dir), expected.metrics, strict=True):
        for name in SAME if line["step"] else ():
            assert line[name] == pytest.approx(other[name], rel=rel, abs=1e-4), (line["step"], name)


def test_two_hosts_without_a_common_disk_train_as_one_process_and_go_on_from_a_checkpoint(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hosts.pair
    before = {path.name for path in second.folder.iterdir()}
    (code, output), (other_code, other_output) = hosts.run("train.max_steps=1", "train.save_every=1")
    assert (code, other_code) == (0, 0), output + other_output
    assert output.count("done: 1 step") == 1
    (code, output), (other_code, other_output) = hosts.run("train.save_every=1", "--resume")
    assert (code, other_code) == (0, 0), output + other_output
    assert "done: " not in other_output
    require_same_numbers(first.folder / "runs/tiny", alone(hosts, monkeypatch))
    assert {path.name for path in second.folder.iterdir()} <= before | {"cache"}  # only rank 0 writes


def test_sharded_weights_go_on_from_a_checkpoint_of_one_disk_and_python_has_the_result_on_both(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in hosts.pair:
        (host.folder / "train.py").write_text(FROM_PYTHON)
    student = {"student.lora_rank": 0, "student.learning_rate": 0.01}
    over = {**student, "student.shard": "always", "train.save_every": 1}
    program = ("train.py",)
    outcomes = hosts.run(json.dumps({**over, "train.max_steps": 1}), program=program)
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    assert all("RESULT 1 completed" in output for _, output in outcomes)
    outcomes = hosts.run(json.dumps(over), "--resume", program=program)
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    run_dir = hosts.pair[0].folder / "runs/tiny"
    lines = f"RESULT 2 completed {len(metrics(run_dir))} model"
    assert all(lines in output for _, output in outcomes), outcomes
    require_same_numbers(run_dir, alone(hosts, monkeypatch, **student), rel=1e-2)


def test_a_host_that_is_gone_costs_the_step_in_hand_and_is_named(hosts: Hosts) -> None:
    first = hosts.pair[0].folder
    (first / "wait").touch()
    leader, other = hosts.start("train.prompt_groups_per_step=2")
    until((first / "waiting").exists)
    kill_host(other)
    code, output = finished(leader)
    assert code == 1
    assert "failed: rank 1 of 2 on host-b is gone, without a word" in output
    assert "whether host-b ran out of memory or off the network" in output
    run_dir = first / "runs/tiny"
    assert [step_of(path) for path in checkpoints(run_dir)] == [2]
    assert "go on after step 2 with here, and on each other host with its own --node-rank:" in output
    command = next(line for line in output.splitlines() if line.startswith("  torchrun"))
    assert command.startswith("  torchrun --nnodes 2 --node-rank 0 --master-addr 127.0.0.1 --master-port ")


def test_what_hosts_do_not_have_alike_is_named_before_anything_is_loaded(hosts: Hosts) -> None:
    folder = hosts.pair[1].folder
    with (folder / "code-second/both.py").open("a") as file:
        file.write("# mended on one host alone\n")
    weights = folder / "teacher-of-second/model.safetensors"
    shutil.copy(folder / "student-of-second/model.safetensors", folder / "student-of-second/other.safetensors")
    assert weights.is_file()
    hosts.pair[1].words += ("student.weight_decay=0.5",)
    (code, output), _ = hosts.run()
    assert code == 1
    assert "loading" not in output
    on_a = "on rank 0 on host-a"
    for difference in (
        f"error: rank 1 on host-b: student.weight_decay is 0.5, and 0.0 {on_a}; start every process with the same opt",
        f"rank 1 on host-b: the code of plugins.0 (both.py) is not what it is {on_a}; copy the same file to every host",
        f"the content of student's model (weights) is not what it is {on_a}; every host needs a copy of the same model",
    ):
        assert difference in output, output
